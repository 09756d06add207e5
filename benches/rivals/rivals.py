"""The servers that are measured: how each is built, started and named, and why it is set up as it is."""

import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILT = TARGET / "rivals"
GO_SOURCES = Path("/usr/share/gocode/src")


class Unavailable(Exception):
    """This server cannot be had here, and why."""


class Server:
    """One of the servers. `build` makes the program and sets `program` and `version`."""

    key = ""
    name = ""
    setup = ""  # how it is set up and why, for the page
    packages = ()  # of Debian
    takes_workers = False
    version = ""
    program = None

    def build(self):
        raise NotImplementedError

    def available(self):
        """Whether what `build` needs is installed."""
        return True

    def command(self, address, workers=None):
        extra = [str(workers)] if workers and self.takes_workers else []
        return [str(self.program), address, *extra]


def run(*command, **options):
    """Runs a program for its output; a failure says what it printed."""
    done = subprocess.run([str(it) for it in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Unavailable(
            f"{Path(str(command[0])).name} failed: {(done.stderr or done.stdout).strip()[-600:]}"
        )
    return done.stdout.strip()


def cargo(*arguments, **options):
    """Cargo says on the terminal how far it is."""
    command = [os.environ.get("CARGO", "cargo"), *arguments]
    if subprocess.run(command, **options).returncode != 0:
        raise Unavailable(f"`{' '.join(command)}` failed")


def locked(lock, package):
    """The version of a package in a Cargo.lock."""
    found = re.search(rf'name = "{package}"\nversion = "([^"]+)"', lock.read_text())
    return found.group(1) if found else "?"


def have(*programs):
    return all(shutil.which(it) for it in programs)


class Touchdown(Server):
    key = "touchdown"
    name = "touchdown"
    takes_workers = True
    setup = (
        "`examples/greeter_server.rs` with the defaults (16 workers), but for room for 8,192 connections and"
        " as many waiting calls, so that 5,000 callers fit"
    )

    def build(self):
        cargo("build", "--release", "--locked", "-p", "touchdown-rivals", cwd=ROOT)
        self.program = TARGET / "release/bench_touchdown"
        self.version = locked(ROOT / "Cargo.lock", "touchdown")
        if (ROOT / ".git").exists() and have("git"):
            commit = run("git", "-C", ROOT, "rev-parse", "--short", "HEAD")
            sources = ("Cargo.toml", "Cargo.lock", "build.rs", "src", "crates/touchdown-build")
            changed = run("git", "-C", ROOT, "status", "--porcelain", "--", *sources)
            self.version += f" ({commit}{', changed' if changed else ''})"


class GrpcioPool(Server):
    key = "grpcio"
    name = "grpcio + pool"
    takes_workers = True
    setup = (
        "a completion queue and a thread for each core, which is its default, and 16 threads that run the handlers;"
        " the same C-core as touchdown's. Replies are sent from grpcio's threads, which costs less than sending"
        " them from the pool"
    )

    def build(self):
        # Built with touchdown; asked for again, this takes no time.
        cargo("build", "--release", "--locked", "-p", "touchdown-rivals", cwd=ROOT)
        self.program = TARGET / "release/bench_grpcio_pool"
        self.version = locked(ROOT / "Cargo.lock", "grpcio")


class Tonic(Server):
    key = "tonic"
    name = "tonic"
    setup = (
        "Tokio's multi-thread runtime and tonic's server, both with their defaults (a thread for each core,"
        " TCP_NODELAY). A handler that blocks does so in `spawn_blocking`; one that does not, runs in place"
    )

    def build(self):
        folder = HERE / "tonic"
        environment = dict(os.environ, CARGO_TARGET_DIR=str(BUILT / "tonic"))
        cargo("build", "--release", "--locked", cwd=folder, env=environment)
        self.program = BUILT / "tonic/release/rival-tonic"
        lock = folder / "Cargo.lock"
        self.version = (
            f"{locked(lock, 'tonic')} (hyper {locked(lock, 'hyper')}, tokio {locked(lock, 'tokio')})"
        )


class Cpp(Server):
    key = "cpp"
    name = "gRPC C++"
    packages = ("g++", "libgrpc++-dev", "pkg-config", "protobuf-compiler", "protobuf-compiler-grpc")
    setup = (
        "the synchronous API with its defaults: the library's own threads poll and run the handlers, and more are"
        " started while all are busy"
    )

    def available(self):
        if not have("g++", "protoc", "grpc_cpp_plugin", "pkg-config"):
            return False
        return subprocess.run(["pkg-config", "--exists", "grpc++"]).returncode == 0

    def build(self):
        folder = BUILT / "cpp"
        folder.mkdir(parents=True, exist_ok=True)
        self.program = folder / "server"
        self.version = (
            f"{run('pkg-config', '--modversion', 'grpc++')} ({run('g++', '--version').splitlines()[0]})"
        )
        sources = [HERE / "cpp/server.cc", ROOT / "proto/greeter.proto", HERE / "rivals.py"]
        if self.program.exists() and all(it.stat().st_mtime < self.program.stat().st_mtime for it in sources):
            return
        plugin = shutil.which("grpc_cpp_plugin")
        run(
            "protoc", "-I", ROOT / "proto", f"--cpp_out={folder}", f"--grpc_out={folder}",
            f"--plugin=protoc-gen-grpc={plugin}", "greeter.proto",
        )  # fmt: skip
        flags = run("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
        generated = [folder / "greeter.pb.cc", folder / "greeter.grpc.pb.cc"]
        run(
            "g++", "-O2", "-std=c++17", "-I", folder, sources[0], *generated, "-o", self.program, *flags
        )  # fmt: skip


class Go(Server):
    key = "go"
    name = "grpc-go"
    # Those of tests/foreign/grpc-go.sh, and protoc. The package with a generator that is built already
    # (golang-goprotobuf-dev) cannot be installed beside them.
    packages = (
        "golang-go", "golang-google-grpc-dev", "golang-github-golang-protobuf-1-5-dev", "protobuf-compiler",
    )  # fmt: skip
    generator = "github.com/golang/protobuf/protoc-gen-go"
    setup = "the server's defaults: a goroutine for each call, GOMAXPROCS as many as there are cores"

    def available(self):
        needed = ("google.golang.org/grpc", self.generator)
        return have("go", "protoc") and all((GO_SOURCES / it).exists() for it in needed)

    def build(self):
        folder = BUILT / "go"
        sources = folder / "src/bench/server"
        sources.mkdir(parents=True, exist_ok=True)
        # The place of a Go package is an option of the .proto file, of which only Go knows.
        proto = (ROOT / "proto/greeter.proto").read_text()
        proto = proto.replace("package greeter;", 'package greeter;\noption go_package = "bench/greeter";')
        (folder / "greeter.proto").write_text(proto)
        environment = dict(os.environ, GO111MODULE="off", GOPATH=f"{folder}:{GO_SOURCES.parent}")
        generator = folder / "protoc-gen-go"
        run("go", "build", "-o", generator, self.generator, env=environment)
        run(
            "protoc", "-I", folder, f"--plugin=protoc-gen-go={generator}",
            f"--go_out=plugins=grpc:{folder / 'src'}", "greeter.proto",
        )  # fmt: skip
        shutil.copyfile(HERE / "go/server.go", sources / "server.go")
        self.program = folder / "server"
        run("go", "build", "-o", self.program, "bench/server", env=environment)
        text = (GO_SOURCES / "google.golang.org/grpc/version.go").read_text()
        version = re.search(r'Version = "([^"]+)"', text).group(1)
        self.version = f"{version} ({run('go', 'version').split()[2]})"


ALL = (Touchdown(), Tonic(), GrpcioPool(), Cpp(), Go())


def prepare(wanted, install):
    """Builds the wanted servers. Returns those that were built, and why the others were not, by name."""
    ready, missing = [], {}
    for server in ALL:
        if server.key not in wanted:
            continue
        print(f"building {server.name}", flush=True)
        try:
            if not server.available() and install:
                subprocess.run([ROOT / ".ci/install", *server.packages])
            if not server.available():
                raise Unavailable(f"Debian's packages {' '.join(server.packages)} are not installed")
            server.build()
            ready.append(server)
        except Unavailable as error:
            missing[server.name] = str(error)
            print(f"{server.name} is left out: {error}", flush=True)
    return ready, missing
