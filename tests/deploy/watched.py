"""A clipd with API keys, a Prometheus that scrapes it with the rules of deploy/monitoring, and clients of all kinds."""

import base64
import contextlib
import json
import re
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from rendering import DEPLOY, ROOT, run

# A debug build on a busy machine.
START_SECONDS = 60
RULES = yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())["spec"]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


@contextlib.contextmanager
def process(command, log, pattern, **how):
    """A running program, and what the groups of `pattern` are in its log, which tells that it is there."""
    with open(log, "wb") as file:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **how)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(pattern, log.read_text(), re.DOTALL)):
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield found.groups()
    finally:
        running.terminate()
        running.wait(40)


def certificate(folder):
    """One for this machine, which vouches for itself: its own file and that of its key."""
    files = folder / "tls.crt", folder / "tls.key"
    run(
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"],
        *["-subj", "/CN=clipd", "-addext", "subjectAltName=IP:127.0.0.1"],
        *["-addext", "basicConstraints=critical,CA:false", "-out", files[0], "-keyout", files[1]],
        stderr=subprocess.DEVNULL,
    )
    return files


class Clipd:
    """Under TLS, with the keys `search`, which has no limits, and `slow`, which has; one thread for everything."""

    def __init__(self, binary, folder, stack):
        self.binary, self.keys = binary, folder / "keys.toml"
        self.search = self._key("search")
        self.slow = self._key("slow", "--rate", "1", "--burst", "1")
        self.certificate, key = certificate(folder)
        self._trust = ssl.create_default_context(cafile=self.certificate)
        flags = ["--device=cpu", "--threads=1", "--preprocess-threads=1", f"--api-keys={self.keys}"]
        flags += [f"--tls-cert={self.certificate}", f"--tls-key={key}"]
        ports = [f"--{port}listen=127.0.0.1:0" for port in ("", "http-", "metrics-")]
        log = r'"grpc":"([^"]+)".*"http":"([^"]+)".*"metrics":"([^"]+)".*"message":"ready"'
        command = [binary, "serve", *flags, *ports, "--log-format=json"]
        self.grpc, self.http, self.metrics = stack.enter_context(process(command, folder / "clipd.log", log))

    def _key(self, *arguments):
        return run(self.binary, "keys", "add", *arguments, "--file", self.keys).strip()

    def exposition(self):
        return get(f"http://{self.metrics}/metrics")

    def post(self, path, body, key, **headers):
        """The status."""
        headers = {"content-type": "application/json", "x-api-key": key, **headers}
        request = urllib.request.Request(f"https://{self.http}{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self._trust) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code


class Prometheus:
    """Scrapes every second, and has the rules with as short an interval."""

    def __init__(self, folder, target, stack):
        rules = {"groups": [group | {"interval": "1s"} for group in RULES["groups"]]}
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        # The labels that the operator gives to a pod.
        labels = {"namespace": "ml", "pod": "clipd-0", "instance": "clipd-0:9090"}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {"job_name": "clipd", "static_configs": [{"targets": [target], "labels": labels}]},
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        log = r'msg="Listening on" address=(\S+).*Server is ready to receive web requests'
        listening = process([*command, "--web.listen-address=127.0.0.1:0"], folder / "prometheus.log", log)
        (self.address,) = stack.enter_context(listening)

    def query(self, expression, **arguments):
        """Series, now, or of a range if `start`, `end` and `step` are given."""
        kind = "query_range" if arguments else "query"
        form = urllib.parse.urlencode({"query": expression, **arguments})
        try:
            return json.loads(get(f"http://{self.address}/api/v1/{kind}?{form}"))["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error

    def wait_for(self, expression):
        deadline = time.monotonic() + 60
        while not self.query(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.2)


def picture(path):
    return {"image": base64.b64encode((ROOT / path).read_bytes()).decode()}


def load(clipd, seconds):
    """Clients that want texts, pictures and labels, too much, nonsense, and what they may not, for some seconds."""
    image, photo = picture("tests/fixtures/images/pizza.jpg"), picture("src/bench/pictures/0.jpg")
    labels = [f"an emoji of {word}" for word in ("pizza", "dog", "cat", "car")]
    text, embed = "an emoji of a large pie of apples, with cream and sugar on it", "/v1/embeddings"
    calls = [
        (embed, {"input": ["a dog"]}, clipd.search, {}),
        # Hardly anything to prepare, and much for the device.
        *[(embed, {"input": [text] * 250}, clipd.search, {})] * 3,
        # The other way round.
        *[(embed, {"input": [photo] * 60}, clipd.search, {})] * 3,
        (embed, {"input": [image, text] * 30}, clipd.search, {}),
        (embed, {"input": [image] * 120}, clipd.search, {"clip-timeout": "20ms"}),
        ("/v1/classify", {"input": [image], "labels": labels}, clipd.search, {}),
        (embed, {"input": [{"image": "bm9uZQ=="}]}, clipd.search, {}),
        (embed, {"input": ["too often"]}, clipd.slow, {}),
        (embed, {"input": ["who is it"]}, "nobody", {}),
    ]
    end, statuses = time.monotonic() + seconds, set()

    def client(path, body, key, headers):
        while time.monotonic() < end:
            statuses.add(clipd.post(path, body, key, **headers))

    def streams():
        # The command line embeds over a stream. The last file is no picture, which is an error of that input alone.
        command = [clipd.binary, "embed", "--text=a dog", "tests/fixtures/images", "-"]
        environment = {"CLIPD_API_KEY": clipd.search, "CLIPD_ADDR": f"https://{clipd.grpc}"}
        environment["CLIPD_TLS_CA"] = str(clipd.certificate)
        while time.monotonic() < end:
            done = subprocess.run(command, cwd=ROOT, env=environment, input=b"none", capture_output=True, timeout=60)
            assert done.returncode == 1 and done.stdout, done.stderr

    threads = [threading.Thread(target=client, args=call) for call in calls] + [threading.Thread(target=streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses
