"""Certificates for TLS, and a configuration that names them."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificates(folder: Path) -> None:
    """Write a CA, a server's and a client's key and certificate with openssl's own library."""

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    for who in ("ca", "server", "client"):
        key = ca_key if who == "ca" else ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(who))
            .issuer_name(name("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        plain = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
        locked = key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret"))
        (folder / f"{who}.key").write_bytes(plain)
        (folder / f"{who}.locked.key").write_bytes(locked)
        (folder / f"{who}.crt").write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(pem))


def ssl_config(
    folder: Path, key: str = "server.key", certificate: str = "server.crt", verify: bool = True
) -> Path:
    def quoted(name):
        return '"' + (folder / name).read_text().replace("\n", "\\n") + '"'

    path = folder / "ssl.config"
    path.write_text(
        f"server_key: {quoted(key)}\nserver_cert: {quoted(certificate)}\n"
        f"custom_ca: {quoted('ca.crt')}\nclient_verify: {'true' if verify else 'false'}\n"
    )
    return path
