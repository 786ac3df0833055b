#!/usr/bin/env python3
"""Run a command on another kernel: Debian's own, with cgroup v2 alone, in qemu.

    tests/vm/vm.py -- minibox run --rm base echo hi
    tests/vm/vm.py --store tmpfs --user -- minibox doctor
    tests/vm/vm.py                                        # a shell on the terminal

The machine's root file system is this host's, read-only by 9p, under an overlay in memory: whatever the
command writes is gone afterwards. Its container stores (/var/lib/minibox, /home, /var/tmp) lie on a new
ext4, or on a tmpfs. Output and exit status are the command's; 124 says that the time limit ended it.

The kernel comes from the distribution's package linux-image-amd64, unpacked and never installed, and
stays in $XDG_CACHE_HOME/minibox-vm.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minibox-vm"
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
DISK_BYTES = 8 << 30  # sparse
BOOT_S = 180  # 5 s with KVM, 8 to 25 s by emulation on a machine that has other things to do
TIMED_OUT = 124  # timeout(1)'s
UNAVAILABLE = 69  # sysexits.h: there can be no virtual machine here
KVM_CREATE_VM = 0xAE01


def main() -> int:
    options = _arguments()
    if why := _impossible():
        print(f"vm: no virtual machine here: {why}", file=sys.stderr)
        return UNAVAILABLE
    for number in (signal.SIGTERM, signal.SIGHUP):  # leave as by Ctrl-C: the machine and its files go first
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    release = _unpacked_kernel()
    with tempfile.TemporaryDirectory(prefix="minibox-vm-") as name:
        directory = Path(name)
        share = directory / "share"
        share.mkdir()
        (share / "command").write_text(_guest_command(options, release))
        _initramfs(release, directory)
        if options.store == "ext4":
            _disk(directory / "disk")
        return _boot(options, release, directory)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run a command on Debian's kernel with cgroup v2, in qemu.")
    parser.add_argument("--store", choices=("ext4", "tmpfs"), default="ext4", help="what container stores lie on")
    parser.add_argument("--user", action="store_true", help="as an ordinary user with subordinate ids")
    parser.add_argument("--delegate", action="store_true", help="with a cgroup that is the ordinary user's")
    parser.add_argument("--systemd", action="store_true", help="with systemd as first process, and a login session")
    parser.add_argument(
        "--lsm", metavar="NAMES", help="its security modules, comma-separated, instead of Debian's choice"
    )
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for boot and command (600)")
    parser.add_argument("--memory", default="2G", help="of the machine (2G)")
    parser.add_argument("--results", metavar="DIRECTORY", help="where what the command leaves in /results is put")
    parser.add_argument("--console", action="store_true", help="show the kernel's messages too, on standard error")
    parser.add_argument("command", nargs="*", help="a shell command; a shell when left out")
    return parser.parse_args()


def _impossible() -> str:
    """Why this host can't do it; "" when it can."""
    if os.uname().machine != "x86_64":
        return f"it is for x86_64, and this is {os.uname().machine}"
    programs = ("apt-get", "apt-cache", "dpkg", "depmod", "busybox", "qemu-system-x86_64", "setpriv")
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in programs if not shutil.which(name, path=path)]
    return f"{', '.join(missing)} not found; on Debian: tools/debian-packages vm" if missing else ""


# ---- the kernel ---------------------------------------------------------------------------------


def _unpacked_kernel() -> str:
    """Unpack the distribution's kernel where it isn't yet; its release, as uname(1) says it."""
    package = _newest_package()
    release = package.removeprefix("linux-image-")
    if not (CACHE / release / "boot" / f"vmlinuz-{release}").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            print(f"vm: fetching {package}", file=sys.stderr)
            _output("apt-get", "download", package, cwd=name)
            (archive,) = Path(name).glob("*.deb")
            _output("dpkg", "-x", str(archive), f"{name}/{release}")
            _output("depmod", "--basedir", f"{name}/{release}", release)
            Path(f"{name}/{release}").rename(CACHE / release)
    return release


def _newest_package() -> str:
    """What linux-image-amd64 depends on; without package lists, what is in the cache."""
    for line in _output("apt-cache", "depends", "linux-image-amd64").splitlines():
        if line.strip().startswith("Depends: linux-image-"):
            return line.split()[1].strip("<>")
    kept = sorted(entry.name for entry in CACHE.glob("*-amd64")) if CACHE.is_dir() else []
    if not kept:
        sys.exit("vm: no package linux-image-amd64: run apt-get update")
    return f"linux-image-{kept[-1]}"


def _initramfs(release: str, directory: Path) -> None:
    """A busybox, the modules to reach the root file system, and the script that does."""
    root = directory / "initramfs"
    for name in ("bin", "lib/modules", "proc", "sys", "dev", "lower", "upper", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    shutil.copy(HERE / "initramfs.sh", root / "init")
    (root / "init").chmod(0o755)
    modules = CACHE / release / "lib/modules" / release
    order = []
    for name in BOOT_MODULES:
        shown = _output("modprobe", "--dirname", str(CACHE / release), "--set-version", release, "--show-depends", name)
        order += [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
    names = list(dict.fromkeys(order))
    for path in names:
        shutil.copy(modules / path, root / "lib/modules")
    (root / "lib/modules/order").write_text("".join(f"{Path(path).name}\n" for path in names))
    files = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with open(directory / "initrd", "wb") as archive:
        command = ["/bin/busybox", "cpio", "-o", "-H", "newc"]
        subprocess.run(
            command, input=files.encode(), stdout=archive, stderr=subprocess.DEVNULL, cwd=root, check=True
        )  # fmt: skip


def _disk(path: Path) -> None:
    with open(path, "wb") as disk:
        disk.truncate(DISK_BYTES)
    _output("/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", str(path))


# ---- the machine --------------------------------------------------------------------------------


def _guest_command(options: argparse.Namespace, release: str) -> str:
    """What tests/vm/guest.sh reads: shell variables."""
    command = options.command
    values = {
        "COMMAND": command[0] if len(command) == 1 else shlex.join(command),
        "MODULES": str(CACHE / release / "lib/modules"),
        "STORE": options.store,
        "AS_USER": "1" if options.user else "",
        "DELEGATE": "1" if options.delegate else "",
        "DIRECTORY": str(CHECKOUT),
        "PATH": f"{CHECKOUT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "MINIBOX_TEST_SLOWNESS": "1" if "kvm" in _accelerator() else "4",
        **_terminal(),
        **{name: value for name, value in os.environ.items() if name.startswith(("MINIBOX_", "PYTEST_"))},
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _terminal() -> dict[str, str]:
    """The console is a terminal inside; where there is none here, programs mustn't paint, or wait for a key."""
    if sys.stdout.isatty():
        return {"TERM": os.environ.get("TERM", "dumb")}
    return {"TERM": "dumb", "NO_COLOR": "1", "PAGER": "cat", "SYSTEMD_PAGER": "cat"}


def _qemu(options: argparse.Namespace, release: str, directory: Path) -> list[str]:
    share, disk = directory / "share", directory / "disk"
    host = "local,security_model=none,multidevs=remap"
    quiet = "" if options.console else "quiet loglevel=3"
    words = f"""
        qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
        {_accelerator()} -cpu max -smp 2 -m {options.memory}
        -kernel {CACHE / release / "boot" / f"vmlinuz-{release}"} -initrd {directory / "initrd"}
        -fsdev {host},id=root,path=/,readonly=on -device virtio-9p-pci,fsdev=root,mount_tag=root
        -fsdev {host},id=share,path={share} -device virtio-9p-pci,fsdev=share,mount_tag=share
        -chardev stdio,id=terminal,signal=off -device virtio-serial-pci -device virtconsole,chardev=terminal
        -chardev file,id=kernel,path={directory / "console"} -serial chardev:kernel
        -nic user,model=virtio-net-pci,restrict=on,ipv6=off -device virtio-rng-pci
    """.split()
    if disk.exists():
        words += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
    script = str(HERE / ("guest-systemd.sh" if options.systemd else "guest.sh"))
    systemd = "systemd.unified_cgroup_hierarchy=1 fstab=no" if options.systemd else ""
    more = f"{systemd} lsm={options.lsm}" if options.lsm else systemd
    return [
        *words,
        "-append",
        f"console=ttyS0 {quiet} panic=-1 tsc=reliable no_timer_check mitigations=off {more} guest={script}",
    ]


def _accelerator() -> str:
    """Hardware virtualization where it works: that /dev/kvm exists is no proof."""
    emulator = "-accel tcg,thread=multi"
    if not set(Path("/proc/cpuinfo").read_text().split()) & {"vmx", "svm"}:
        return emulator
    try:
        with open("/dev/kvm", "r+b", buffering=0) as kvm:
            os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
    except OSError:
        return emulator
    return f"-accel kvm {emulator}"  # the second is what qemu falls back to


def _boot(options: argparse.Namespace, release: str, directory: Path) -> int:
    interactive = not options.command
    # A console without anybody at it: qemu would make our standard output non-blocking for all who share it.
    streams = {} if interactive else {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    # The kernel ends qemu with us, however we end.
    words = ["setpriv", "--pdeathsig", "KILL", *_qemu(options, release, directory)]
    with subprocess.Popen(words, **streams) as machine:  # type: ignore[call-overload]
        clock = _Clock(machine, directory / "share/started", options.timeout)
        try:
            while machine.stdout and (data := os.read(machine.stdout.fileno(), 65536)):
                os.write(1, data)
            machine.wait()
        finally:
            machine.kill()
        ended = clock.stop()
    if options.console:
        sys.stderr.write((directory / "console").read_text(errors="replace"))
    return _status(options, directory, ended)


class _Clock:
    """Ends the machine when it takes too long to come up, or the command too long to end."""

    def __init__(self, machine: subprocess.Popen[bytes], started: Path, timeout_s: float) -> None:
        self.machine, self.started, self.left_s, self.ended = machine, started, timeout_s, ""
        signal.signal(signal.SIGALRM, self._ring)
        self._wind(min(BOOT_S, timeout_s))

    def _wind(self, seconds: float) -> None:
        self.left_s -= seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _ring(self, *_: object) -> None:
        if self.started.exists() and self.left_s > 0:
            self._wind(self.left_s)
            return
        self.ended = "the command was still running" if self.started.exists() else "the machine had not come up"
        self.machine.kill()

    def stop(self) -> str:
        """Why it ended the machine; "" when it didn't."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self.ended


def _status(options: argparse.Namespace, directory: Path, ended: str) -> int:
    """The command's exit status, and its results where they are wanted."""
    results, status = directory / "share/results", directory / "share/status"
    if options.results and results.is_dir():
        shutil.copytree(results, options.results, dirs_exist_ok=True)
    if status.exists() and not ended:
        return int(status.read_text())
    limit_s = options.timeout if (directory / "share/started").exists() else min(BOOT_S, options.timeout)
    why = f"ended after {limit_s:g} s: {ended}" if ended else "the machine ended before the command did"
    last = (directory / "console").read_text(errors="replace").splitlines()[-20:]
    print(f"vm: {why}", *(["the kernel's last words:", *last] if last else []), sep="\n", file=sys.stderr)
    return TIMED_OUT if ended else 125


def _output(*words: str, cwd: str | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        sys.exit(f"vm: {shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
