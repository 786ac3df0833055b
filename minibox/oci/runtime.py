"""The OCI runtime specification 1.3, Linux: ``config.json`` and ``state.json``, field for field.

At run time these are plain dicts, so the types cost nothing if you import them under ``TYPE_CHECKING``.
`minibox.oci.schema` checks JSON from others against them. Names are the specification's own.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md and config-linux.md.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Root(TypedDict):
    path: str
    readonly: NotRequired[bool]


class LinuxIDMapping(TypedDict):
    containerID: int
    hostID: int
    size: int


class Mount(TypedDict):
    destination: str
    type: NotRequired[str]
    source: NotRequired[str]
    options: NotRequired[list[str]]
    uidMappings: NotRequired[list[LinuxIDMapping]]
    gidMappings: NotRequired[list[LinuxIDMapping]]


class Box(TypedDict):
    height: int
    width: int


class User(TypedDict):
    uid: int
    gid: int
    umask: NotRequired[int]
    additionalGids: NotRequired[list[int]]


class LinuxCapabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class POSIXRlimit(TypedDict):
    type: str
    soft: int
    hard: int


class Scheduler(TypedDict):
    policy: str
    nice: NotRequired[int]
    priority: NotRequired[int]
    flags: NotRequired[list[str]]
    runtime: NotRequired[int]
    deadline: NotRequired[int]
    period: NotRequired[int]


LinuxIOPriority = TypedDict("LinuxIOPriority", {"class": str, "priority": NotRequired[int]})


class ExecCPUAffinity(TypedDict, total=False):
    initial: str
    final: str


class Process(TypedDict):
    cwd: str
    user: NotRequired[User]
    terminal: NotRequired[bool]
    consoleSize: NotRequired[Box]
    env: NotRequired[list[str]]
    args: NotRequired[list[str]]
    commandLine: NotRequired[str]
    rlimits: NotRequired[list[POSIXRlimit]]
    apparmorProfile: NotRequired[str]
    capabilities: NotRequired[LinuxCapabilities]
    noNewPrivileges: NotRequired[bool]
    oomScoreAdj: NotRequired[int]
    scheduler: NotRequired[Scheduler]
    selinuxLabel: NotRequired[str]
    ioPriority: NotRequired[LinuxIOPriority]
    execCPUAffinity: NotRequired[ExecCPUAffinity]


class Hook(TypedDict):
    path: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    timeout: NotRequired[int]


class Hooks(TypedDict, total=False):
    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


NamespaceType = Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


class LinuxNamespace(TypedDict):
    type: NamespaceType
    path: NotRequired[str]


class LinuxDevice(TypedDict):
    type: str
    path: str
    major: NotRequired[int]
    minor: NotRequired[int]
    fileMode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]


class LinuxDeviceCgroup(TypedDict):
    allow: bool
    type: NotRequired[str]
    major: NotRequired[int]
    minor: NotRequired[int]
    access: NotRequired[str]


class LinuxMemory(TypedDict, total=False):
    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class LinuxCPU(TypedDict, total=False):
    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class LinuxPids(TypedDict):
    limit: int


class LinuxWeightDevice(TypedDict):
    major: int
    minor: int
    weight: NotRequired[int]
    leafWeight: NotRequired[int]


class LinuxThrottleDevice(TypedDict):
    major: int
    minor: int
    rate: int


class LinuxBlockIO(TypedDict, total=False):
    weight: int
    leafWeight: int
    weightDevice: list[LinuxWeightDevice]
    throttleReadBpsDevice: list[LinuxThrottleDevice]
    throttleWriteBpsDevice: list[LinuxThrottleDevice]
    throttleReadIOPSDevice: list[LinuxThrottleDevice]
    throttleWriteIOPSDevice: list[LinuxThrottleDevice]


class LinuxHugepageLimit(TypedDict):
    pageSize: str
    limit: int


class LinuxInterfacePriority(TypedDict):
    name: str
    priority: int


class LinuxNetwork(TypedDict, total=False):
    classID: int
    priorities: list[LinuxInterfacePriority]


class LinuxRdma(TypedDict, total=False):
    hcaHandles: int
    hcaObjects: int


class LinuxResources(TypedDict, total=False):
    devices: list[LinuxDeviceCgroup]
    memory: LinuxMemory
    cpu: LinuxCPU
    pids: LinuxPids
    blockIO: LinuxBlockIO
    hugepageLimits: list[LinuxHugepageLimit]
    network: LinuxNetwork
    rdma: dict[str, LinuxRdma]
    unified: dict[str, str]


class LinuxSeccompArg(TypedDict):
    index: int
    value: int
    op: str
    valueTwo: NotRequired[int]


class LinuxSyscall(TypedDict):
    names: list[str]
    action: str
    errnoRet: NotRequired[int]
    args: NotRequired[list[LinuxSeccompArg]]


class LinuxSeccomp(TypedDict):
    defaultAction: str
    defaultErrnoRet: NotRequired[int]
    architectures: NotRequired[list[str]]
    flags: NotRequired[list[str]]
    listenerPath: NotRequired[str]
    listenerMetadata: NotRequired[str]
    syscalls: NotRequired[list[LinuxSyscall]]


class LinuxIntelRdt(TypedDict, total=False):
    closID: str
    l3CacheSchema: str
    memBwSchema: str
    schemata: list[str]
    enableCMT: bool
    enableMBM: bool
    enableMonitoring: bool


class LinuxMemoryPolicy(TypedDict):
    mode: str
    nodes: NotRequired[str]
    flags: NotRequired[list[str]]


class LinuxPersonality(TypedDict):
    domain: str
    flags: NotRequired[list[str]]


class LinuxTimeOffset(TypedDict, total=False):
    secs: int
    nanosecs: int


class LinuxNetDevice(TypedDict, total=False):
    name: str


class Linux(TypedDict, total=False):
    uidMappings: list[LinuxIDMapping]
    gidMappings: list[LinuxIDMapping]
    sysctl: dict[str, str]
    resources: LinuxResources
    cgroupsPath: str
    namespaces: list[LinuxNamespace]
    devices: list[LinuxDevice]
    seccomp: LinuxSeccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: LinuxIntelRdt
    memoryPolicy: LinuxMemoryPolicy
    personality: LinuxPersonality
    timeOffsets: dict[str, LinuxTimeOffset]
    netDevices: dict[str, LinuxNetDevice]


class Spec(TypedDict):
    """The ``config.json`` of a bundle."""

    ociVersion: str
    process: NotRequired[Process]
    root: NotRequired[Root]
    hostname: NotRequired[str]
    domainname: NotRequired[str]
    mounts: NotRequired[list[Mount]]
    hooks: NotRequired[Hooks]
    annotations: NotRequired[dict[str, str]]
    linux: NotRequired[Linux]


class State(TypedDict):
    """The JSON that ``state`` prints and that hooks read (runtime.md, "State")."""

    ociVersion: str
    id: str
    status: Literal["creating", "created", "running", "stopped"]
    pid: NotRequired[int]
    bundle: str
    annotations: NotRequired[dict[str, str]]
