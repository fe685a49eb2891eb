"""A token issuer for tests, with keys of its own."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from orchestrator.config.spec import JwtIssuer

ISSUER = "https://login.test"
RULES: list[dict[str, Any]] = [
    {"claims": {"groups": "staff"}, "workload": "open"},
    {"claims": {"azp": "robot", "internal": True}, "workload": "closed"},
]


class SigningKey:
    def __init__(self, kid: str, algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        self._private: Any
        if algorithm.startswith("ES"):
            curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm]
            self._private = ec.generate_private_key(curve)
        elif algorithm == "EdDSA":
            self._private = ed25519.Ed25519PrivateKey.generate()
        else:
            self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def jwk(self) -> dict[str, Any]:
        made = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self._private.public_key())
        return {**json.loads(made), "kid": self.kid, "use": "sig"}

    def sign(self, claims: object, algorithm: str = "", **header: Any) -> str:
        return jwt.api_jws.encode(
            json.dumps(claims).encode(),
            self._private,
            algorithm or self.algorithm,
            {"kid": self.kid, **header},
        )

    def token(self, **claims: Any) -> str:
        """Of a member of staff; None takes a claim out."""
        return self.sign(claims_of(**claims))


def claims_of(**claims: Any) -> dict[str, Any]:
    whole = {
        "iss": ISSUER,
        "aud": "inference",
        "sub": "someone",
        "exp": int(time.time()) + 600,
        "groups": ["other", "staff"],
        **claims,
    }
    return {name: value for name, value in whole.items() if value is not None}


def key_set(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.jwk for key in keys]}).encode()


def issuer(**fields: Any) -> JwtIssuer:
    made = {"issuer": ISSUER, "audience": "inference", "leeway_s": 0, "workloads": RULES}
    return JwtIssuer.model_validate({**made, **fields})


def issuer_with_file(directory: Path, *keys: SigningKey, **fields: Any) -> JwtIssuer:
    file = directory / "keys.json"
    file.write_bytes(key_set(*keys))
    return issuer(**{"jwks_file": str(file), **fields})
