"""One instance of a chute as SDK 0.3.33 runs it: checks the validator, opens the envelope, calls a cord, seals the answer.

Arguments and keywords come as gzip'd pickles or as plain JSON; fickling loads the pickles, as in the SDK. Every cord
answers with what it was given, so that a test sees exactly what arrived.
"""

import base64
import gzip
import hashlib
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fickling
from Crypto.Cipher import AES
from Crypto.Util.Padding import pad, unpad
from substrateinterface import Keypair

# By path: whether it is a passthrough cord, and whether it streams.
CORDS = {"/echo": (False, False), "/relay": (True, False), "/tell": (True, True)}
NONCE_WINDOW = 30
BLOCK = 16

PORT, MINER, VALIDATOR = int(sys.argv[1]), sys.argv[2], sys.argv[3]
KEY = bytes.fromhex(os.environ["INSTANCE_KEY"])


class Refused(Exception):
    """An answer in clear instead of the cord's."""

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status, self.detail = status, detail


def decrypt(iv: bytes, sealed: bytes) -> bytes:
    return unpad(AES.new(KEY, AES.MODE_CBC, iv).decrypt(sealed), BLOCK)


def encrypt(iv: bytes, clear: bytes) -> str:
    return base64.b64encode(AES.new(KEY, AES.MODE_CBC, iv).encrypt(pad(clear, BLOCK))).decode()


def check_signature(headers, body: bytes) -> None:
    """Only our validator may call, only for our miner, and only now."""
    names = ("X-Chutes-Miner", "X-Chutes-Validator", "X-Chutes-Nonce", "X-Chutes-Signature")
    miner, validator, nonce, signature = (headers.get(name) for name in names)
    stale = not nonce or not nonce.isdigit() or time.time() - int(nonce) > NONCE_WINDOW
    if miner != MINER or validator != VALIDATOR or stale or not signature:
        raise Refused(401, "go away (missing)")
    message = f"{miner}:{validator}:{nonce}:{hashlib.sha256(body).hexdigest()}"
    if not Keypair(ss58_address=VALIDATOR).verify(message, bytes.fromhex(signature)):
        raise Refused(401, "go away (sig)")


def open_path(path: str) -> str:
    try:
        return decrypt(bytes.fromhex(path[1:33]), bytes.fromhex(path[33:])).decode().rstrip("?")
    except ValueError as error:
        raise Refused(404, f"Bad path: {error}") from error


def open_body(body: bytes) -> tuple[bytes, object]:
    try:
        iv = bytes.fromhex(body[:32].decode())
        return iv, json.loads(decrypt(iv, base64.b64decode(body[32:], validate=True)))
    except ValueError as error:
        raise Refused(451, f"Decryption failed: {error}") from error


def call_arguments(opened: object, serialized: bool, passthrough: bool) -> tuple[list, dict]:
    """The cord's arguments; without pickles the SDK takes whatever Python holds for false as no argument at all."""
    if serialized:
        args, kwargs = (fickling.load(gzip.decompress(base64.b64decode(opened[name]))) for name in ("args", "kwargs"))
        return list(args), kwargs
    if passthrough:
        return [], {"json": opened} if opened else {}
    return [opened] if opened else [], {}


class Handler(BaseHTTPRequestHandler):
    """One request; the connection closes after it, as with the SDK."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if self.client_address[0] == "127.0.0.1":
                raise Refused(500, "the SDK takes this peer for its own development mode")
            check_signature(self.headers, body)
            path = open_path(self.path)
            if path not in CORDS:
                raise Refused(404, "Not Found")
            passthrough, streams = CORDS[path]
            iv, opened = open_body(body)
            serialized = self.headers.get("X-Chutes-Serialized") is not None
            args, kwargs = call_arguments(opened, serialized, passthrough)
        except Refused as refused:
            self.send(refused.status, json.dumps({"detail": refused.detail}))
            return
        seen = json.dumps({"path": path, "serialized": serialized, "args": args, "kwargs": kwargs}).encode()
        if streams:
            pieces = [b"data: " + seen + b"\n", b"\n", b"data: [DONE]\n", b"\n"]
            self.send(200, "".join(encrypt(iv, piece) + "\n" for piece in pieces))
        else:
            self.send(200, json.dumps({"json": encrypt(iv, seen)}))

    def send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
