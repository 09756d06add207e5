//! Whether two things would have the same name in Rust.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::descriptor::field_descriptor_proto::{Label, Type as FieldType};
use protobuf::descriptor::DescriptorProto;

use crate::docs::{child, path};
use crate::file::{File, Options};
use crate::services::Service;
use crate::{names, Error};

impl File {
    /// Looks for two things that would have the same name in Rust although they have not in the `.proto`
    /// file. Returns the names of all types at the top of the file.
    pub(crate) fn check_names(
        &self,
        services: &[Service],
        options: &Options,
    ) -> Result<BTreeSet<String>, Error> {
        let mut scope = Scope::new(self);
        for (i, message) in self.proto.message_type.iter().enumerate() {
            scope.message(message, &[path::FILE_MESSAGE, i as i32])?;
        }
        for (i, enumeration) in self.proto.enum_type.iter().enumerate() {
            let name = enumeration.name();
            scope.add(
                names::message_type(name),
                format!("the enum `{name}`"),
                &[path::FILE_ENUM, i as i32],
            )?;
        }
        for (i, service) in services.iter().enumerate() {
            let name = self.proto.service[i].name();
            let path = [path::FILE_SERVICE, i as i32];
            if options.server {
                scope.add(
                    service.trait_name.clone(),
                    format!("the trait of the service `{name}`"),
                    &path,
                )?;
            }
            if options.server || options.client {
                scope.add(
                    service.methods_name.clone(),
                    format!("the module for the names of the methods of the service `{name}`"),
                    &path,
                )?;
            }
            if options.client {
                scope.add(
                    service.client_name.clone(),
                    format!("the client of the service `{name}`"),
                    &path,
                )?;
            }
        }
        Ok(scope.names.into_keys().collect())
    }
}

/// The names of types and modules in one Rust module, and what each is for.
struct Scope<'a> {
    file: &'a File,
    names: BTreeMap<String, String>,
}

impl<'a> Scope<'a> {
    fn new(file: &'a File) -> Scope<'a> {
        Scope {
            file,
            names: BTreeMap::new(),
        }
    }

    fn add(&mut self, name: String, what: String, path: &[i32]) -> Result<(), Error> {
        match self.names.get(&name) {
            Some(other) => Err(self.file.error(
                path,
                &format!(
                    "{what} and {other} would both be called `{name}` in Rust; rename one of them"
                ),
            )),
            None => {
                self.names.insert(name, what);
                Ok(())
            }
        }
    }

    /// Looks at the fields of the message's struct, and at the methods that give access to them.
    fn fields(&self, message: &DescriptorProto, path: &[i32]) -> Result<(), Error> {
        let is_proto2 = matches!(self.file.proto.syntax(), "" | "proto2");
        let mut members = Scope::new(self.file);
        let mut methods = Scope::new(self.file);
        let reserved = |what: &str, name: &str, path: &[i32]| {
            Err(self.file.error(
                path,
                &format!("{what} would be called `{name}` in Rust, a name that every message uses itself; rename it"),
            ))
        };
        for (i, oneof) in message.oneof_decl.iter().enumerate() {
            if is_synthetic(message, i) {
                continue;
            }
            let path = child(path, path::MESSAGE_ONEOF, i);
            let what = format!("the oneof `{}`", oneof.name());
            let name = names::field(oneof.name());
            if name == names::RESERVED_MEMBER {
                return reserved(&what, &name, &path);
            }
            members.add(name, what, &path)?;
        }
        for (i, field) in message.field.iter().enumerate() {
            if field.type_() == FieldType::TYPE_GROUP {
                continue;
            }
            let path = child(path, path::MESSAGE_FIELD, i);
            let what = format!("the field `{}`", field.name());
            let in_oneof = field.has_oneof_index() && !field.proto3_optional();
            if !in_oneof {
                let name = names::field(field.name());
                if name == names::RESERVED_MEMBER {
                    return reserved(&what, &name, &path);
                }
                members.add(name, what.clone(), &path)?;
            }
            let has_default = is_proto2
                && field.label() != Label::LABEL_REPEATED
                && field.type_() != FieldType::TYPE_MESSAGE;
            if in_oneof || has_default {
                let is_copy = !matches!(
                    field.type_(),
                    FieldType::TYPE_MESSAGE | FieldType::TYPE_STRING | FieldType::TYPE_BYTES
                );
                for name in names::field_methods(field.name(), is_copy) {
                    let what = format!("a method for {what}");
                    if names::RESERVED_METHODS.contains(&name.as_str()) {
                        return reserved(&what, &name, &path);
                    }
                    methods.add(name, what, &path)?;
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &DescriptorProto, path: &[i32]) -> Result<(), Error> {
        if message.options.map_entry() {
            return Ok(());
        }
        let name = message.name();
        self.add(
            names::message_type(name),
            format!("the message `{name}`"),
            path,
        )?;

        self.fields(message, path)?;

        let mut inner = Scope::new(self.file);
        for (i, nested) in message.nested_type.iter().enumerate() {
            inner.message(nested, &child(path, path::MESSAGE_NESTED, i))?;
        }
        for (i, nested) in message.enum_type.iter().enumerate() {
            inner.add(
                names::message_type(nested.name()),
                format!("the enum `{}`", nested.name()),
                &child(path, path::MESSAGE_ENUM, i),
            )?;
        }
        for (i, oneof) in message.oneof_decl.iter().enumerate() {
            if !is_synthetic(message, i) {
                inner.add(
                    names::message_type(oneof.name()),
                    format!("the oneof `{}`", oneof.name()),
                    &child(path, path::MESSAGE_ONEOF, i),
                )?;
            }
        }
        if !inner.names.is_empty() {
            self.add(
                names::nested_module(name),
                format!("the module for what is nested in the message `{name}`"),
                path,
            )?;
        }
        Ok(())
    }
}

/// Whether a oneof is not in the file but stands for an `optional` field of proto3.
fn is_synthetic(message: &DescriptorProto, oneof: usize) -> bool {
    (message.field.iter())
        .any(|field| field.proto3_optional() && field.oneof_index == Some(oneof as i32))
}
