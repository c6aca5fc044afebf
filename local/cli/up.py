"""`./dev up` and `./dev down`: the embedded AWS deployed and left running."""

import shlex
from pathlib import Path

from local.cli import embedded, image_source
from local.cli.account import embedded_account, exports
from local.cli.deployment import deploy, stack_outputs
from local.cli.interruption import postponed

HOME = embedded.STATE.parent / "home"


def up() -> int:
    found = embedded.running()
    if found is None:
        clear_remains()
        found = begin(HOME)
    else:
        print(f"already up at {found.endpoint}")
    for name, value in exports(found.endpoint).items():
        print(f"export {name}={shlex.quote(value)}")
    print("\n./dev drop DIR drops a dataset, ./dev runs lists the runs, ./dev down stops it all")
    print(f"e-mails arrive in {found.mailbox}")
    return 0


def begin(home: Path) -> embedded.Embedded:
    """Start, deploy, and push the image source; a failure or interruption leaves nothing running."""
    started: embedded.Embedded | None = None
    try:
        with postponed():
            child = embedded.start(home)
            started = embedded.Embedded("", str(home), child.pid)
        started = embedded.Embedded(embedded.wait_until_ready(home, child), str(home), child.pid)
        embedded.remember(started)
        print(f"embedded AWS at {started.endpoint}; sam build and sam deploy")
        account = embedded_account(started)
        deploy(account, print)
        outputs = stack_outputs(account)
        commit = image_source.push(account, outputs)
        print(f"pushed {commit[:12]} to {outputs['ImageSourceRepositoryName']}")
        print(image_source.wait_for_image(account, outputs, commit, print).uri)
        return started
    except BaseException:
        with postponed():
            if started:
                embedded.shut_down(started)
            else:
                embedded.forget()
        raise


def clear_remains() -> None:
    """What a process that was killed or a machine that went down left behind."""
    if embedded.STATE.exists() or HOME.exists():
        embedded.forget()


def down() -> int:
    found = embedded.running()
    if found is None:
        clear_remains()
        print("nothing is up")
        return 0
    embedded.shut_down(found)
    print("stopped, and its folder removed")
    return 0
