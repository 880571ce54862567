#!/usr/bin/env python3
"""The program of the step `greet`: it is given the path of its invocation, a JSON file."""

import json
import sys

GREETINGS = {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}

with open(sys.argv[1], encoding="utf-8") as file:
    invocation = json.load(file)

greeting = GREETINGS.get(invocation["configuration"]["language"])
if greeting is None:
    sys.exit("no greeting in that language")
print(f"{greeting}, {invocation['parameters']['name']}!")
