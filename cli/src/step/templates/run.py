#!/usr/bin/env python3
"""The program of the step `STEP_NAME`. Its one argument is the path of its invocation, a JSON file.

Its exit code is its result: 0 success, 1 failed, 2 aborted, 3 unstable.
"""

import http.client
import json
import socket
import sys


class Agent(http.client.HTTPConnection):
    """The agent, over the unix socket of the invocation."""

    def __init__(self, configuration):
        super().__init__("otto")
        self.path = configuration["ipc"]
        self.endpoints = configuration["endpoints"]

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)

    def call(self, method, path, body):
        """Sends bytes, and fails if they are not taken."""
        self.request(method, path, body, {"Authorization": "Bearer " + self.endpoints["secret"]})
        response = self.getresponse()
        answer = response.read()
        if response.status >= 300:
            sys.exit(f"{method} {path}: {response.status} {answer.decode()}")


with open(sys.argv[1], encoding="utf-8") as file:
    invocation = json.load(file)
configuration, parameters = invocation["configuration"], invocation["parameters"]
agent = Agent(configuration)

greeting = f"{configuration['word']}, {parameters['who']}!"
agent.call("POST", agent.endpoints["status"], json.dumps({"status": "greeting"}).encode())
print(greeting, flush=True)
agent.call("PUT", agent.endpoints["variables"] + "/" + parameters["into"], greeting.encode())
