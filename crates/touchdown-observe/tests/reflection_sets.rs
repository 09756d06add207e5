//! Descriptors that a server with reflection is started with: those of touchdown-build, and some that are of no use.

#![cfg(feature = "reflection")]

mod reflection_support;

use std::env;
use std::fs;
use std::process::Command;

use reflection_support::*;
use touchdown::protobuf::descriptor::DescriptorProto;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::TestServer;
use touchdown::{Call, Replies, Requests, Server, Service, StartError, Status, StreamReplies};
use touchdown_observe::reflection::{DescriptorError, Reflection};
use touchdown_observe::ObserveServer;

/// Why a server with these sets does not start.
fn refusal(sets: Vec<Vec<u8>>) -> DescriptorError {
    let all = sets.into_iter();
    let reflection = all.fold(Reflection::new(), Reflection::descriptors);
    match TestServer::start(server_of(reflection)) {
        Err(StartError::Companion(error)) => *error.downcast().unwrap(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it has started"),
    }
}

#[test]
fn bytes_that_are_no_set_keep_the_server_from_starting() {
    let whole = set(demo());
    let cut = whole[..whole.len() - 1].to_vec();
    for (sets, number) in [
        (vec![vec![]], 1),
        (vec![whole, b"syntax = \"proto3\";".to_vec()], 2),
        (vec![cut], 1),
        (vec![vec![0xff; 64]], 1),
        // Of a later version, without a file.
        (vec![vec![0x7a, 0]], 1),
    ] {
        let text = format!(
            "reflection: descriptor set {number} is no google.protobuf.FileDescriptorSet, or is empty"
        );
        assert_eq!(refusal(sets).to_string(), text);
    }
}

#[test]
fn a_file_that_cannot_be_read_keeps_the_server_from_starting() {
    let set_of = |file: &[u8]| {
        let mut set = vec![0x0a, file.len().try_into().unwrap()];
        set.extend_from_slice(file);
        set
    };
    let mut without_name = demo();
    without_name[3].message_type[0].nested_type[0].clear_name();
    let mut of_nothing = demo();
    of_nothing[0].clear_name();
    let around = |inner: DescriptorProto, _| {
        let mut outer = message("M");
        outer.nested_type.push(inner);
        outer
    };
    let mut deep = file("deep.proto", "", &[]);
    deep.message_type.push((0..100).fold(message("M"), around));
    for (set, text) in [
        // It is cut behind its name, in a set that is whole.
        (
            set_of(&[0x0a, 1, b'a', 0x12, 9]),
            "a in descriptor set 1 cannot be decoded",
        ),
        (
            set_of(&[0x0a, 1, 0xff]),
            "\u{fffd} in descriptor set 1 has a name that is no text",
        ),
        (
            set(without_name),
            "demo/demo.proto in descriptor set 1 declares something without a name",
        ),
        (
            set(of_nothing),
            "file 1 in descriptor set 1 declares something without a name",
        ),
        (
            set(vec![deep]),
            "deep.proto in descriptor set 1 has messages that are nested too deep",
        ),
    ] {
        assert_eq!(
            refusal(vec![set]).to_string(),
            format!("reflection: {text}")
        );
    }
}

#[test]
fn sets_that_are_not_whole_or_contradict_each_other_keep_the_server_from_starting() {
    let alone = set(vec![demo().pop().unwrap()]);
    assert_eq!(
        refusal(vec![alone]).to_string(),
        "reflection: demo/demo.proto imports demo/left.proto, which no descriptor set has: make the set with all \
         imports (protoc --include_imports)"
    );
    let mut changed = demo();
    changed[1].set_package("other".to_owned());
    assert_eq!(
        refusal(vec![set(demo()), set(changed)]).to_string(),
        "reflection: the descriptor sets have more than one demo/left.proto, and they differ: rename one of them"
    );
}

/// The set that touchdown-build makes of the greeter.
fn greeter() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    touchdown_build::Builder::new()
        .file("../../proto/greeter.proto")
        .out_dir(folder.path())
        .descriptors(true)
        .compile()
        .unwrap();
    fs::read(folder.path().join("descriptors.bin")).unwrap()
}

/// The greeter, as far as strangers call it here: the first field of each message is a text.
fn greeting() -> TestServer {
    let hello = |_: &Call, request: StringValue| {
        let value = format!("Hello, {}!", request.value);
        Ok::<_, Status>(StringValue {
            value,
            ..Default::default()
        })
    };
    let echo = |said: StringValue, replies: &StreamReplies<StringValue>| replies.send(&said);
    let chat = move |_: &Call, requests: Requests<StringValue>, replies: Replies<StringValue>| {
        requests.detach(replies, echo)
    };
    let service = Service::builder("greeter.Greeter")
        .unary("SayHello", hello)
        .bidirectional("Chat", chat);
    let builder = Server::builder()
        .service(service.build())
        .reflection(Reflection::new().descriptors(greeter()));
    TestServer::start(builder).unwrap()
}

#[test]
fn what_touchdown_build_makes_is_served() {
    let server = greeting();
    let mut talk = Talk::of(&server, V1);
    let files = talk.files(symbol("greeter.Greeter.SayHello"));
    assert_eq!(files.unwrap(), ["greeter.proto"]);
}

#[test]
fn health_is_described_as_the_server_has_it() {
    let described = fs::read_to_string("proto/grpc/health/v1/health.proto").unwrap();
    // A published package has no other.
    if let Ok(served) = fs::read_to_string("../../proto/health.proto") {
        assert_eq!(described, served);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{said}\n{errors}");
    said
}

/// Tools that have no .proto file. In a folder of your own, install them:
///
/// ```sh
/// npm install @bufbuild/buf
/// python3 -m venv venv && venv/bin/pip install grpcio grpcio-reflection
/// ```
///
/// and then, from here:
///
/// ```sh
/// TOUCHDOWN_BUF=FOLDER/node_modules/.bin/buf TOUCHDOWN_PYTHON=FOLDER/venv/bin/python \
///     cargo test -p touchdown-observe --features reflection --test reflection_sets -- --ignored --nocapture
/// ```
#[test]
#[ignore = "needs buf, and Python with grpcio-reflection: see its comment"]
fn strangers_list_and_call_without_a_proto_file() {
    let server = greeting();
    let at = format!("http://{}", server.address());
    let services = [
        "greeter.Greeter",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];

    let buf = env::var_os("TOUCHDOWN_BUF").expect("TOUCHDOWN_BUF is where buf is");
    for version in ["grpc-v1", "grpc-v1alpha"] {
        let curl = |arguments: &[&str]| {
            let mut command = Command::new(&buf);
            command.args(["curl", "--http2-prior-knowledge", "--protocol", "grpc"]);
            command.args(["--reflect-protocol", version]);
            let said = run(command.args(arguments));
            println!("{version}: buf curl {}\n{said}", arguments.join(" "));
            said
        };
        let list = curl(&["--list-services", &at]);
        assert_eq!(list.lines().collect::<Vec<_>>(), services);
        let list = curl(&["--list-methods", &at]);
        assert!(
            list.lines()
                .any(|it| it == "greeter.Greeter/GreetEverybody"),
            "{list}"
        );
        let hello = format!("{at}/greeter.Greeter/SayHello");
        let said = curl(&["--data", r#"{"name":"buf"}"#, &hello]);
        assert!(said.contains("Hello, buf!"), "{said}");
        let chat = format!("{at}/greeter.Greeter/Chat");
        let said = curl(&["--data", r#"{"name":"a"} {"name":"b"}"#, &chat]);
        assert_eq!(said.matches("\"text\"").count(), 2, "{said}");
        let check = format!("{at}/grpc.health.v1.Health/Check");
        let said = curl(&["--data", "{}", &check]);
        assert!(said.contains("\"SERVING\""), "{said}");
    }

    let python = env::var_os("TOUCHDOWN_PYTHON").expect("TOUCHDOWN_PYTHON is where Python is");
    let mut command = Command::new(python);
    command.args(["-B", "tests/reflection.py", &server.address().to_string()]);
    let said = run(&mut command);
    println!("{said}");
    let expected = format!("{}\nHello, Python!\nSERVING\n", services.join(" "));
    assert_eq!(said, expected);
}
