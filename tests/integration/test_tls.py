"""Endpoints over TLS: nothing is sent to one that cannot prove who it is."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.engines import World, world

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@dataclass(frozen=True)
class Signed:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def files(self, directory: Path, name: str) -> tuple[Path, Path]:
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key


def signed(
    name: str,
    by: Signed | None = None,
    host: x509.GeneralName = LOOPBACK,
    ends: datetime.datetime = NOW + DAY,
) -> Signed:
    """A server's certificate by an authority, or an authority's own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = by.certificate.subject if by else subject
    issuing_key = by.key if by else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()),
            critical=False,
        )
    )
    if by is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=by is None,
        crl_sign=by is None,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(usage, critical=True)
    return Signed(builder.sign(issuing_key, hashes.SHA256()), key)


@asynccontextmanager
async def before(url: str, context: ssl.SSLContext | None, seen: bytearray) -> AsyncIterator[str]:
    """A TLS front of a plain endpoint; without a context it speaks no TLS. `seen`: every byte of a
    request."""
    port = int(url.rsplit(":", 1)[1])

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: bytearray | None
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if note is not None:
                    note += data
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_writer, seen), pump(to_reader, writer, None))

    front = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}"
    finally:
        front.close()


def run(
    tmp_path: Path,
    test: Callable[[World, bytearray], Awaitable[None]],
    certificate: Signed | None,
    trusted: Path | None,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> None:
    """Home stands behind TLS, with this certificate."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate.files(tmp_path, "server"))
        if newest is not ssl.TLSVersion.MAXIMUM_SUPPORTED:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
    seen = bytearray()
    fronts = iter([True, False])  # home's first

    @asynccontextmanager
    async def through(url: str) -> AsyncIterator[str]:
        if not next(fronts):
            yield url
            return
        async with before(url, context, seen) as secure_url:
            yield secure_url

    plain = "name: home, zone: onprem, kind: openai,"
    replacing = {plain: f'{plain} ca_file: "{trusted}",'} if trusted else {}

    async def inside() -> None:
        async with world(tmp_path / "config", through=through, replacing=replacing) as w:
            await test(w, seen)

    (tmp_path / "config").mkdir()
    uvloop.run(inside())


async def served_at_home(w: World, seen: bytearray) -> None:
    for stream in (True, False):
        for _ in range(2):
            async with w.post("closed", stream=stream) as answer:
                assert answer.status == 200
                assert " t2" in await answer.text()
    assert len(w.home.received) == 4
    assert b"POST /v1/chat/completions" in seen


async def refused_at_home(w: World, seen: bytearray) -> None:
    """Without one byte of a request, and served elsewhere where that may be."""
    for stream in (True, False):
        async with w.post("closed", stream=stream) as answer:
            assert answer.status == 503
        async with w.post("open", stream=stream) as answer:
            assert answer.status == 200
            assert answer.headers["x-orchestrator-pool"] == "b-away"
    assert not w.home.received
    assert b"HTTP" not in seen
    failures = await w.series("orchestrator_upstream_failures_total")
    assert {labels["reason"] for labels in failures} <= {"unreachable", "protocol"}
    assert failures


@pytest.fixture(scope="module")
def authority() -> Signed:
    return signed("an authority of our own")


@pytest.fixture
def trusted(tmp_path: Path, authority: Signed) -> Path:
    return authority.files(tmp_path, "authority")[0]


def test_an_endpoint_is_trusted_by_the_authority_that_its_cluster_names(
    tmp_path: Path, authority: Signed, trusted: Path
) -> None:
    run(tmp_path, served_at_home, signed("home", authority), trusted)


def test_without_a_named_authority_the_system_s_are_trusted_alone(
    tmp_path: Path, authority: Signed, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, refused_at_home, signed("home", authority), None)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    other = tmp_path / "trusted-by-the-system"
    other.mkdir()
    run(other, served_at_home, signed("home", authority), None)


def test_a_named_authority_is_trusted_in_the_place_of_the_system_s(
    tmp_path: Path, authority: Signed, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    other = signed("another authority").files(tmp_path, "other")[0]
    run(tmp_path, refused_at_home, signed("home", authority), other)


def _certificates(authority: Signed) -> dict[str, Signed | None]:
    stranger = signed("an authority of nobody")
    return {
        "of another host": signed("home", authority, x509.DNSName("elsewhere.example")),
        "of another address": signed(
            "home", authority, x509.IPAddress(ipaddress.ip_address("127.0.0.2"))
        ),
        "named only in its subject": signed("127.0.0.1", authority, x509.DNSName("a.example")),
        "expired": signed("home", authority, ends=NOW - DAY),
        "by another authority": signed("home", stranger),
        "its own": signed("127.0.0.1"),
        "none": None,
    }


@pytest.mark.parametrize(
    "which",
    [
        "of another host",
        "of another address",
        "named only in its subject",
        "expired",
        "by another authority",
        "its own",
        "none",
    ],
)
def test_nothing_is_sent_to_an_endpoint_with_a_wrong_certificate(
    tmp_path: Path, authority: Signed, trusted: Path, which: str
) -> None:
    run(tmp_path, refused_at_home, _certificates(authority)[which], trusted)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_an_old_protocol_is_refused(tmp_path: Path, authority: Signed, trusted: Path) -> None:
    run(
        tmp_path,
        refused_at_home,
        signed("home", authority),
        trusted,
        newest=ssl.TLSVersion.TLSv1_1,
    )


@pytest.mark.parametrize("content", [b"", b"no certificate"])
def test_a_file_without_an_authority_trusts_nobody(
    tmp_path: Path, authority: Signed, content: bytes
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_bytes(content)
    run(tmp_path, refused_at_home, signed("home", authority), broken)
