"""A real Kubernetes API server on loopback: etcd, kube-apiserver, RBAC, client certificates.

    with ApiServer(directory) as server:
        server.kubeconfig()   # path of a file

There is no kubelet, no scheduler, no controller manager: tests play those that they need.
"""

import datetime
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

READY_S = 60
STOP_S = 15
BINARIES = Path(__file__).parents[2] / ".venv" / "kube"


class ApiServer:
    """Runs between entry and exit. Raises RuntimeError where it does not start."""

    def __init__(self, directory: Path, binaries: Path = BINARIES) -> None:
        self._directory = directory
        self._binaries = binaries
        self._authority = Authority(directory)
        self._processes = ExitStack()
        self.port = free_port()
        self._etcd = f"http://127.0.0.1:{free_port()}"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def start(self) -> None:
        peer = f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={self._etcd}",
            f"--advertise-client-urls={self._etcd}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        )
        self.start_api()

    def start_api(self) -> None:
        serving = self._authority.issue("kube-apiserver", [], server=True)
        signing = self._authority.issue("service-accounts", [])
        self._api = self._run(
            "kube-apiserver",
            f"--etcd-servers={self._etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={self._authority.certificate}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={signing.key}",
            f"--service-account-signing-key-file={signing.key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Nobody makes its tokens here.
            "--disable-admission-plugins=ServiceAccount",
        )
        deadline_s = time.monotonic() + READY_S
        while not self._ready():
            if time.monotonic() > deadline_s or self._api.poll() is not None:
                log = (self._directory / "kube-apiserver.log").read_text()[-2000:]
                raise RuntimeError(f"kube-apiserver does not start: {log}")
            time.sleep(0.2)

    def stop_api(self) -> None:
        """The API server alone: etcd keeps what there was."""
        _end(self._api)

    def kubeconfig(self) -> Path:
        """Of somebody who may do anything."""
        identity = self._authority.issue("admin", ["system:masters"])
        path = self._directory / "admin.kubeconfig"
        user = {"client-certificate": str(identity.certificate), "client-key": str(identity.key)}
        cluster = {"server": self.url, "certificate-authority": str(self._authority.certificate)}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "admin", "user": user}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )
        return path

    def _ready(self) -> bool:
        admin = self._authority.issue("admin", ["system:masters"])
        context = ssl.create_default_context(cafile=str(self._authority.certificate))
        context.load_cert_chain(admin.certificate, admin.key)
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _run(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        log = self._processes.enter_context((self._directory / f"{name}.log").open("ab"))
        process = subprocess.Popen(
            [self._binaries / name, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        self._processes.callback(_end, process)
        return process


class Identity:
    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key


class Authority:
    """Issues certificates into a directory, each name's once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._issued: dict[tuple[str, ...], Identity] = {}
        self.certificate = directory / "ca.crt"
        made = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, user: str, groups: list[str], server: bool = False) -> Identity:
        asked = (user, *groups)
        if asked in self._issued:
            return self._issued[asked]
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        builder = _builder(subject, self._name, key.public_key())
        if server:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), False)
        number = len(self._issued)
        identity = Identity(self._directory / f"{number}.crt", self._directory / f"{number}.key")
        certificate = builder.sign(self._key, hashes.SHA256())
        identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        identity.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        identity.key.chmod(0o600)
        self._issued[asked] = identity
        return identity


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
