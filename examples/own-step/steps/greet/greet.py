#!/usr/bin/env python3
"""The program of the step `greet`: it is given the path of its invocation, a JSON file, and calls the agent over a unix socket."""

import http.client
import json
import socket
import sys

GREETINGS = {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}


class Agent(http.client.HTTPConnection):
    """The agent, over the socket of an invocation."""

    def __init__(self, configuration):
        super().__init__("otto")
        self.path, self.endpoints = configuration["ipc"], configuration["endpoints"]

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)

    def call(self, method, path, body):
        self.request(method, path, body.encode(), {"Authorization": "Bearer " + self.endpoints["secret"]})
        response = self.getresponse()
        answer = response.read().decode()
        if response.status >= 300:
            sys.exit(f"{method} {path}: {response.status} {answer}")


with open(sys.argv[1], encoding="utf-8") as file:
    invocation = json.load(file)
configuration, parameters = invocation["configuration"], invocation["parameters"]
agent = Agent(configuration)

word = GREETINGS.get(configuration["language"])
if word is None:
    sys.exit("no greeting in that language")
greeting = f"{word}, {parameters['name']}!"
agent.call("POST", agent.endpoints["status"], json.dumps({"status": f"greeting {parameters['name']}"}))
print(greeting, flush=True)
if parameters["variable"]:
    agent.call("PUT", f"{agent.endpoints['variables']}/{parameters['variable']}", greeting)
