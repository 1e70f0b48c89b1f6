"""Signs with RS256 what service accounts ask for tokens with; needs the extra `oauth`."""

from __future__ import annotations

from keyturn.core import Account
from keyturn.errors import NoToken
from keyturn.providers import jwt_to_sign, signed_jwt


def signed_assertion(account: Account, now: float) -> str:
    """The signed JWT. *now*: Unix seconds. Raises NoToken when the key or the extra is of no use."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise NoToken("a service account needs the extra oauth: pip install 'keyturn[oauth]'", final=True) from None
    try:
        key = load_pem_private_key(account.private_key.reveal().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise NoToken(f"the private key of {account.who} is no RSA key in PEM: make a new key file", final=True)
    to_sign = jwt_to_sign(account, now)
    return signed_jwt(to_sign, key.sign(to_sign, PKCS1v15(), SHA256()))
