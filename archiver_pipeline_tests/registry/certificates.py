"""Certificates of a test's own, signed by one authority."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from archiver_pipeline_tests.processes import HOST

PASSWORD = "key-password"


class Certificates:
    """An authority, a certificate for the server, and one for a client with its key under `PASSWORD`.

    Attributes:
        authority, client, client_key: files in PEM.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        self.authority = self._write("authority", self._signed(self._name, self._key.public_key(), authority=True))
        self._server, self._server_key = self._issued("server", None)
        self.client, self.client_key = self._issued("client", PASSWORD)

    def server_side(self) -> ssl.SSLContext:
        """TLS of a server that wants to see the client's certificate."""
        found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority)
        found.verify_mode = ssl.CERT_REQUIRED
        found.load_cert_chain(self._server, self._server_key)
        return found

    def _issued(self, name: str, password: str | None) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        certificate = self._write(name, self._signed(_name(name), key.public_key(), authority=False))
        path = self._folder / f"{name}.key"
        path.write_bytes(text)
        return certificate, str(path)

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder(self._name, name, key, x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address(HOST))
            built = built.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return built.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> str:
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
