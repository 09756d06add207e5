//! Service code: the names of methods, a trait, a function that makes a service of an implementation, and a client.
//!
//! Paths to anything but the messages are absolute, so that a message may be called `Result` or `Status`.

use std::fmt::Write as _;

use crate::messages::push_doc;

/// A service, with names as they are in Rust.
pub(crate) struct Service {
    /// `package.Name`, as in the `.proto` file.
    pub(crate) full_name: String,
    pub(crate) trait_name: String,
    pub(crate) client_name: String,
    pub(crate) function_name: String,
    /// The module with the names of the service and of its methods.
    pub(crate) methods_name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) deprecated: bool,
    pub(crate) methods: Vec<Method>,
}

/// A method of a service, with names as they are in Rust.
pub(crate) struct Method {
    /// As in the `.proto` file.
    pub(crate) proto_name: String,
    pub(crate) name: String,
    /// The name of the client's method that takes options.
    pub(crate) name_with: String,
    /// The constant with the method's name.
    pub(crate) constant: String,
    pub(crate) docs: Vec<String>,
    pub(crate) deprecated: bool,
    /// It may be called twice instead of once.
    pub(crate) idempotent: bool,
    pub(crate) request: String,
    pub(crate) reply: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Bidirectional,
}

impl Kind {
    pub(crate) fn new(client_streaming: bool, server_streaming: bool) -> Kind {
        match (client_streaming, server_streaming) {
            (false, false) => Kind::Unary,
            (false, true) => Kind::ServerStreaming,
            (true, false) => Kind::ClientStreaming,
            (true, true) => Kind::Bidirectional,
        }
    }

    /// The name of the function for this kind, both of the client and of the service's builder.
    fn function(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::ServerStreaming => "server_streaming",
            Kind::ClientStreaming => "client_streaming",
            Kind::Bidirectional => "bidirectional",
        }
    }

    fn streams_requests(self) -> bool {
        matches!(self, Kind::ClientStreaming | Kind::Bidirectional)
    }

    fn streams_replies(self) -> bool {
        matches!(self, Kind::ServerStreaming | Kind::Bidirectional)
    }
}

const STATUS: &str = "::touchdown::Status";
const OPTIONS: &str = "::touchdown::client::CallOptions";

impl Method {
    /// What the trait's method takes after the call: names, and the same with types.
    fn arguments(&self) -> (String, String) {
        let mut names = String::new();
        let mut typed = String::new();
        if self.kind.streams_requests() {
            names += ", requests";
            let _ = write!(typed, ", requests: ::touchdown::Requests<{}>", self.request);
        } else {
            names += ", request";
            let _ = write!(typed, ", request: {}", self.request);
        }
        if self.kind.streams_replies() {
            names += ", replies";
            let _ = write!(typed, ", replies: ::touchdown::Replies<{}>", self.reply);
        }
        (names, typed)
    }

    /// The trait's method without body.
    fn server_signature(&self) -> String {
        let reply = if self.kind.streams_replies() {
            "()"
        } else {
            &self.reply
        };
        format!(
            "fn {}(&self, call: &::touchdown::Call{}) -> ::std::result::Result<{reply}, {STATUS}>",
            self.name,
            self.arguments().1
        )
    }

    fn client_result(&self) -> String {
        let (request, reply) = (&self.request, &self.reply);
        let value = match self.kind {
            Kind::Unary => reply.clone(),
            Kind::ServerStreaming => format!("::touchdown::client::Replies<{reply}>"),
            Kind::ClientStreaming => format!("::touchdown::client::Upload<{request}, {reply}>"),
            Kind::Bidirectional => format!(
                "(::touchdown::client::Requests<{request}>, ::touchdown::client::Replies<{reply}>)"
            ),
        };
        format!("::std::result::Result<{value}, {STATUS}>")
    }
}

/// The names of the service and of its methods, for both halves.
pub(crate) fn methods(service: &Service) -> String {
    let Service {
        full_name,
        methods_name,
        ..
    } = service;
    let mut code = String::from("\n");
    let doc = format!("The names of the service `{full_name}` and of its methods.");
    push_doc(&mut code, "", &doc);
    let _ = writeln!(code, "pub mod {methods_name} {{");
    let doc = format!("The service `{full_name}`, as health checks name it.");
    push_doc(&mut code, "    ", &doc);
    let _ = writeln!(
        code,
        "    pub const SERVICE: &::std::primitive::str = {full_name:?};"
    );
    for method in &service.methods {
        let Method {
            proto_name,
            constant,
            ..
        } = method;
        code.push('\n');
        push_doc(&mut code, "    ", &format!("The method `{proto_name}`."));
        push_deprecated(&mut code, "    ", method.deprecated);
        let _ = writeln!(
            code,
            "    pub const {constant}: ::touchdown::MethodName = ::touchdown::MethodName::new(SERVICE, {proto_name:?});"
        );
    }
    code.push_str("}\n");
    code
}

/// The server's half: the trait and the function. `parameter` is a name for a type parameter that no type
/// of the file has.
pub(crate) fn server(service: &Service, parameter: &str) -> String {
    let mut code = String::new();
    let Service {
        full_name,
        trait_name,
        function_name,
        methods_name,
        methods,
        ..
    } = service;

    code.push('\n');
    push_docs(&mut code, "", &service.docs, || {
        format!("The service `{full_name}`.")
    });
    push_deprecated(&mut code, "", service.deprecated);
    let _ = writeln!(
        code,
        "pub trait {trait_name}: ::std::marker::Send + ::std::marker::Sync + 'static {{"
    );
    for (i, method) in methods.iter().enumerate() {
        if i > 0 {
            code.push('\n');
        }
        push_docs(&mut code, "    ", &method.docs, || {
            format!("The method `{}`.", method.proto_name)
        });
        push_deprecated(&mut code, "    ", method.deprecated);
        let _ = writeln!(code, "    {};", method.server_signature());
    }
    code.push_str("}\n\n");

    let _ = writeln!(
        code,
        "impl<{parameter}: {trait_name} + ?::std::marker::Sized> {trait_name} for ::std::sync::Arc<{parameter}> {{"
    );
    for method in methods {
        let _ = writeln!(code, "    {} {{", method.server_signature());
        let _ = writeln!(
            code,
            "        <{parameter} as {trait_name}>::{}(&**self, call{})",
            method.name,
            method.arguments().0
        );
        code.push_str("    }\n");
    }
    code.push_str("}\n\n");

    push_doc(
        &mut code,
        "",
        &format!("The service `{full_name}`, to be given to `ServerBuilder::service`."),
    );
    push_deprecated(&mut code, "", service.deprecated);
    let _ = writeln!(
        code,
        "pub fn {function_name}<{parameter}: {trait_name}>(implementation: {parameter}) -> ::touchdown::Service {{"
    );
    if methods.is_empty() {
        code.push_str("    let _ = implementation;\n");
    } else {
        code.push_str("    let implementation = ::std::sync::Arc::new(implementation);\n");
    }
    let _ = writeln!(code, "    ::touchdown::Service::builder({full_name:?})");
    for method in methods {
        let (names, typed) = method.arguments();
        let _ = writeln!(
            code,
            "        .{}({:?}, {{",
            method.kind.function(),
            method.proto_name
        );
        code.push_str(
            "            let implementation = ::std::clone::Clone::clone(&implementation);\n",
        );
        let _ = writeln!(
            code,
            "            move |call: &::touchdown::Call{typed}| <{parameter} as {trait_name}>::{}(&*implementation, call{names})",
            method.name
        );
        code.push_str("        })\n");
    }
    code.push_str("        .build()\n");
    for method in methods.iter().filter(|method| method.idempotent) {
        let _ = writeln!(
            code,
            "        .policy({methods_name}::{}, ::touchdown::DrainPolicy::CutEarly)",
            method.constant
        );
    }
    code.push_str("}\n");
    code
}

/// The client's half.
pub(crate) fn client(service: &Service) -> String {
    let mut code = String::new();
    let Service {
        full_name,
        client_name,
        methods,
        ..
    } = service;

    code.push('\n');
    push_doc(
        &mut code,
        "",
        &format!("A client of `{full_name}`. Cheap to clone; usable from many threads."),
    );
    if !service.docs.is_empty() {
        push_doc(&mut code, "", "");
        push_docs(&mut code, "", &service.docs, String::new);
    }
    code.push_str("#[derive(::std::clone::Clone)]\n");
    push_deprecated(&mut code, "", service.deprecated);
    let _ = writeln!(
        code,
        "pub struct {client_name} {{\n    client: ::touchdown::client::Client,\n}}\n"
    );
    let _ = writeln!(
        code,
        "impl ::std::convert::From<::touchdown::client::Client> for {client_name} {{\n    \
             /// With what stands around the calls of `client`.\n    \
             fn from(client: ::touchdown::client::Client) -> Self {{\n        \
                 Self {{ client }}\n    \
             }}\n}}\n"
    );
    let _ = writeln!(
        code,
        "impl ::std::fmt::Debug for {client_name} {{\n    \
             fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {{\n        \
                 f.debug_struct({client_name:?}).finish_non_exhaustive()\n    \
             }}\n}}\n"
    );
    let _ = writeln!(code, "impl {client_name} {{");
    push_doc(&mut code, "    ", "A client that calls over `channel`.");
    code.push_str("    pub fn new(channel: &::touchdown::client::Channel) -> Self {\n");
    code.push_str("        Self { client: ::touchdown::client::Client::new(channel) }\n    }\n");
    for method in methods {
        let Method {
            proto_name,
            name,
            name_with,
            request,
            kind,
            ..
        } = method;
        let result = method.client_result();
        let (parameter, argument) = if kind.streams_requests() {
            (String::new(), "")
        } else {
            (format!(", request: &{request}"), "request, ")
        };

        code.push('\n');
        push_docs(&mut code, "    ", &method.docs, || {
            format!("Calls the method `{proto_name}`.")
        });
        push_deprecated(&mut code, "    ", method.deprecated);
        let _ = writeln!(
            code,
            "    pub fn {name}(&self{parameter}) -> {result} {{\n        \
                 self.{name_with}({argument}<{OPTIONS} as ::std::default::Default>::default())\n    }}\n"
        );
        push_doc(
            &mut code,
            "    ",
            &format!("[`{name}`](Self::{name}) with options for this one call."),
        );
        push_deprecated(&mut code, "    ", method.deprecated);
        let _ = writeln!(
            code,
            "    pub fn {name_with}(&self{parameter}, options: {OPTIONS}) -> {result} {{\n        \
                 self.client.{}({:?}, {argument}options)\n    }}",
            kind.function(),
            format!("/{full_name}/{proto_name}"),
        );
    }
    code.push_str("}\n");
    code
}

fn push_docs(code: &mut String, indent: &str, docs: &[String], default: impl FnOnce() -> String) {
    if docs.is_empty() {
        push_doc(code, indent, &default());
    }
    for doc in docs {
        push_doc(code, indent, doc);
    }
}

fn push_deprecated(code: &mut String, indent: &str, deprecated: bool) {
    if deprecated {
        code.push_str(indent);
        code.push_str("#[deprecated]\n");
    }
}
