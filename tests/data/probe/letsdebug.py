"""A double of Let's Debug's JSON API, as its README has it, for tests: letsdebug.py PORT ADDRESS.

It asks ADDRESS for the path that the order names, and reports as the real one does where the answer is another.
"""

import http.client
import http.server
import json
import sys

tests = {}
port, address = int(sys.argv[1]), sys.argv[2]


def check(order):
    options = order["options"]
    connection = http.client.HTTPConnection(address, 80, timeout=5)
    path = "/.well-known/acme-challenge/" + options["http_request_path"]
    try:
        connection.request("GET", path, headers={"Host": order["domain"]})
        answer = connection.getresponse()
        body = answer.read(1000).decode("latin-1")
        if answer.status == 200 and body == options["http_expect_response"]:
            return []
        said = f"status {answer.status}"
    except OSError as error:
        said = str(error)
    return [
        {
            "name": "ANotWorking",
            "explanation": f"{order['domain']} has an A (IPv4) record ({address}) but a request to this address over port 80 did not succeed.",
            "detail": said,
            "severity": "Error",
        },
        {"name": "HTTPCheck", "explanation": "what was done", "detail": "", "severity": "Debug"},
    ]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/" or order["method"] != "http-01" or order["domain"] == "bad.example.com":
            return self.answer(400, "no")
        number = len(tests) + 1
        tests[number] = {"order": order, "looked": 0}
        self.answer(200, {"Domain": order["domain"], "ID": number})

    def do_GET(self):
        domain, number = self.path.strip("/").split("/")
        test = tests[int(number)]
        # As the real one it takes a while.
        test["looked"] += 1
        told = {"id": int(number), "domain": domain, "method": "http-01", "status": "Processing"}
        if test["looked"] > 1:
            problems = check(test["order"])
            told |= {"status": "Complete", "result": {"problems": problems} if problems else {}}
        self.answer(200, told)


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
