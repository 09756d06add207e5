//! A file of which code is generated: its services, with the messages that they name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use protobuf::descriptor::file_options::OptimizeMode;
use protobuf::descriptor::method_options::IdempotencyLevel;
use protobuf::descriptor::{
    DescriptorProto, FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto,
};

use crate::docs::{child, path, qualified, SourceInfo};
use crate::modules::protobuf_module;
use crate::services::{Kind, Method, Service};
use crate::{names, Error};

/// What to generate.
pub(crate) struct Options {
    pub(crate) lite: bool,
    pub(crate) client: bool,
    pub(crate) server: bool,
    pub(crate) descriptors: bool,
}

/// A file of which code is generated.
pub(crate) struct File {
    pub(crate) proto: FileDescriptorProto,
    pub(crate) info: SourceInfo,
    /// On disk, or the import's name if it is not there.
    pub(crate) path: PathBuf,
    pub(crate) module: String,
}

impl File {
    pub(crate) fn error(&self, path: &[i32], message: &str) -> Error {
        let (line, column) = self.info.place(path);
        Error::at(&self.path, line, column, message)
    }

    /// Whether its messages do without reflection.
    pub(crate) fn is_lite(&self, options: &Options) -> bool {
        options.lite || is_lite(&self.proto)
    }

    /// Refuses an import of messages without reflection where reflection is to see them.
    pub(crate) fn check_imports(
        &self,
        options: &Options,
        files: &HashMap<String, bool>,
    ) -> Result<(), Error> {
        if self.is_lite(options) {
            return Ok(());
        }
        for (i, import) in self.proto.dependency.iter().enumerate() {
            if files.get(import).copied().unwrap_or_default() {
                return Err(self
                    .error(
                        &[path::FILE_DEPENDENCY, i as i32],
                        &format!(
                            "`{import}` has `option optimize_for = LITE_RUNTIME`, and this file has not: messages with \
                             reflection cannot hold messages without"
                        ),
                    )
                    .with_help(
                        "write the option in this file too, remove it there, or call `Builder::lite(true)`",
                    ));
            }
        }
        Ok(())
    }

    pub(crate) fn services(&self, types: &HashMap<String, Type>) -> Result<Vec<Service>, Error> {
        (self.proto.service.iter().enumerate())
            .map(|(i, service)| self.service(service, &[path::FILE_SERVICE, i as i32], types))
            .collect()
    }

    fn service(
        &self,
        service: &ServiceDescriptorProto,
        path: &[i32],
        types: &HashMap<String, Type>,
    ) -> Result<Service, Error> {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for (i, method) in service.method.iter().enumerate() {
            let name = names::method(method.name());
            if let Some(other) = taken.insert(name.clone(), method.name()) {
                return Err(self.error(
                    &child(path, path::SERVICE_METHOD, i),
                    &format!(
                        "the methods `{other}` and `{}` of the service `{}` would both be called \
                         `{name}` in Rust; rename one of them",
                        method.name(),
                        service.name()
                    ),
                ));
            }
        }
        let mut taken = Taken {
            functions: taken.into_keys().collect(),
            constants: BTreeSet::new(),
        };
        let methods = (service.method.iter().enumerate())
            .map(|(i, method)| {
                let path = child(path, path::SERVICE_METHOD, i);
                self.method(method, &path, &mut taken, types)
            })
            .collect::<Result<_, _>>()?;
        Ok(Service {
            full_name: qualified(self.proto.package(), service.name()),
            trait_name: names::service_trait(service.name()),
            client_name: names::service_client(service.name()),
            function_name: names::service_function(service.name()),
            methods_name: names::service_methods(service.name()),
            docs: self.info.docs(path),
            deprecated: service.options.deprecated(),
            methods,
        })
    }

    fn method(
        &self,
        method: &MethodDescriptorProto,
        path: &[i32],
        taken: &mut Taken,
        types: &HashMap<String, Type>,
    ) -> Result<Method, Error> {
        let type_path = |name: &str| match types.get(name) {
            Some(found) => Ok(found.path(self.proto.name(), 0)),
            None => Err(self.error(path, &format!("`{name}` is no message"))),
        };
        let name = names::method(method.name());
        let mut name_with = format!("{}_with", name.trim_end_matches('_'));
        while !taken.functions.insert(name_with.clone()) {
            name_with.push('_');
        }
        let mut constant = names::method_constant(method.name());
        while !taken.constants.insert(constant.clone()) {
            constant.push('_');
        }
        Ok(Method {
            proto_name: method.name().to_owned(),
            name,
            name_with,
            constant,
            docs: self.info.docs(path),
            deprecated: method.options.deprecated(),
            idempotent: method.options.idempotency_level() != IdempotencyLevel::IDEMPOTENCY_UNKNOWN,
            request: type_path(method.input_type())?,
            reply: type_path(method.output_type())?,
            kind: Kind::new(method.client_streaming(), method.server_streaming()),
        })
    }
}

/// Whether a file says itself that its messages do without reflection.
pub(crate) fn is_lite(file: &FileDescriptorProto) -> bool {
    file.options.optimize_for() == OptimizeMode::LITE_RUNTIME
}

/// Names that the methods of a service have in Rust.
struct Taken {
    /// Methods of the client.
    functions: BTreeSet<String>,
    /// Constants with the names of methods.
    constants: BTreeSet<String>,
}

/// Where a message or an enum is: in which file, and by which path in that file's module.
pub(crate) struct Type {
    file: String,
    /// From any module beside it.
    outside: String,
    /// From its own module.
    inside: String,
}

impl Type {
    /// Its path in a module of `file` that is `depth` modules below the one of the file.
    pub(crate) fn path(&self, file: &str, depth: usize) -> String {
        let path = match self.file == file {
            true => &self.inside,
            false => &self.outside,
        };
        match path.starts_with("::") {
            true => path.clone(),
            false => "super::".repeat(depth) + path,
        }
    }
}

/// All messages and enums, by their full names with a dot before, as in a method's descriptor.
pub(crate) fn types(
    files: &[FileDescriptorProto],
    modules: &BTreeMap<String, String>,
) -> HashMap<String, Type> {
    fn add(
        types: &mut HashMap<String, Type>,
        file: &str,
        module: &str,
        scope: &str,
        inside: &str,
        message: &DescriptorProto,
    ) {
        let full_name = format!("{scope}.{}", message.name());
        let path = format!("{inside}{}", names::message_type(message.name()));
        let nested = format!("{inside}{}::", names::nested_module(message.name()));
        for inner in &message.nested_type {
            add(types, file, module, &full_name, &nested, inner);
        }
        for inner in &message.enum_type {
            let name = format!("{full_name}.{}", inner.name());
            let path = format!("{nested}{}", names::message_type(inner.name()));
            insert(types, file, module, name, path);
        }
        insert(types, file, module, full_name, path);
    }

    fn insert(
        types: &mut HashMap<String, Type>,
        file: &str,
        module: &str,
        full_name: String,
        inside: String,
    ) {
        types.insert(
            full_name,
            Type {
                file: file.to_owned(),
                outside: format!("{module}::{inside}"),
                inside,
            },
        );
    }

    let mut types = HashMap::new();
    for file in files {
        let module = match protobuf_module(file.name()) {
            Some(module) => module,
            None => format!("super::{}", modules[file.name()]),
        };
        let scope = match file.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        for message in &file.message_type {
            add(&mut types, file.name(), &module, &scope, "", message);
        }
        for enumeration in &file.enum_type {
            let name = enumeration.name();
            let (full_name, path) = (format!("{scope}.{name}"), names::message_type(name));
            insert(&mut types, file.name(), &module, full_name, path);
        }
    }
    types
}
