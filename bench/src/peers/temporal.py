"""A worker and a client of Temporal's dev server at the address that is given: for each number that is read, a workflow of so many activities, one after
the other, each a shell. It says when it has ended."""

import asyncio
import sys
import time
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

SCRIPT = sys.argv[2]


@activity.defn
async def shell() -> None:
    process = await asyncio.create_subprocess_exec("/bin/sh", "-xe", "-c", SCRIPT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    await process.communicate()
    assert process.returncode == 0


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await workflow.execute_activity(shell, start_to_close_timeout=timedelta(minutes=1))


async def connected() -> Client:
    """The server is starting, too."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await Client.connect(sys.argv[1])
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def main() -> None:
    client = await connected()
    async with Worker(client, task_queue="bench", workflows=[Chain], activities=[shell]):
        print("ready", flush=True)
        count = 0
        while line := await asyncio.to_thread(sys.stdin.readline):
            count += 1
            await client.execute_workflow(Chain.run, int(line), id=f"bench-{count}", task_queue="bench")
            print("ended", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
