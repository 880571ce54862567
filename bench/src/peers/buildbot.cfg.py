"""The configuration of a Buildbot master with a builder of one step and one of forty. It says on its standard output when a build has ended."""

import os

from buildbot.plugins import schedulers, steps, util, worker
from buildbot.util import service

SCRIPT = os.environ["BENCH_SCRIPT"]
BUILDERS = {"steps-1": 1, "steps-40": 40}


class Says(service.BuildbotService):
    """Tells whoever started the master what happens."""

    async def startService(self):
        await super().startService()
        await self.master.mq.startConsuming(lambda _, build: os.write(1, b"ended\n"), ("builds", None, "finished"))
        await self.master.mq.startConsuming(lambda _, worker: os.write(1, b"ready\n"), ("workers", None, "connected"))


def factory(count):
    return util.BuildFactory([steps.ShellCommand(command=["/bin/sh", "-xe", "-c", SCRIPT]) for _ in range(count)])


BuildmasterConfig = {
    "workers": [worker.Worker("worker", "password")],
    "protocols": {"pb": {"port": f"tcp:{os.environ['BENCH_PB_PORT']}:interface=127.0.0.1"}},
    "schedulers": [schedulers.ForceScheduler(name="force", builderNames=list(BUILDERS))],
    "builders": [util.BuilderConfig(name=name, workernames=["worker"], factory=factory(count)) for name, count in BUILDERS.items()],
    "services": [Says(name="says")],
    "www": {"port": f"tcp:{os.environ['BENCH_WWW_PORT']}:interface=127.0.0.1"},
    "db": {"db_url": "sqlite:///state.sqlite"},
    "buildbotNetUsageData": None,
}
