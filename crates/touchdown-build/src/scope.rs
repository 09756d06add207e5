//! Whether two things would have the same name in Rust, and which other name one of them gets.

use std::collections::{BTreeMap, BTreeSet};

use protobuf::descriptor::field_descriptor_proto::{Label, Type as FieldType};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto};

use crate::docs::{child, path};
use crate::file::{File, Options};
use crate::renames::Rename;
use crate::services::Service;
use crate::{extensions, names, Error};

impl File {
    /// Looks for two things that would have the same name in Rust although they have not in the `.proto`
    /// file. Returns the names of all types at the top of the file, and the oneofs and fields that get another
    /// name.
    pub(crate) fn check_names(
        &self,
        services: &[Service],
        options: &Options,
    ) -> Result<(BTreeSet<String>, Vec<Rename>), Error> {
        let mut scope = Scope::new(self);
        let mut renames = Vec::new();
        for (i, message) in self.proto.message_type.iter().enumerate() {
            scope.message(message, &[path::FILE_MESSAGE, i as i32], &mut renames)?;
        }
        for (i, enumeration) in self.proto.enum_type.iter().enumerate() {
            scope.enumeration(enumeration, &[path::FILE_ENUM, i as i32])?;
        }
        if extensions::has_module(&self.proto, self.is_lite(options)) {
            let path = match self.proto.extension.is_empty() {
                true => [].as_slice(),
                false => &[path::FILE_EXTENSION, 0],
            };
            let what = "the module for extensions".to_owned();
            scope.add(extensions::MODULE.to_owned(), what, path)?;
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
        Ok((scope.names.into_keys().collect(), renames))
    }
}

/// Enums that are nested in a well-known type, at which the generator of messages panics.
const NOT_NAMED: [&str; 2] = [
    ".google.protobuf.Field.Kind",
    ".google.protobuf.Field.Cardinality",
];

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

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Finds names for the oneofs of a message, beside the types that are nested in it, and for its fields and the
    /// methods that give access to them. What would have a name that is taken gets another one.
    fn members(
        &self,
        message: &DescriptorProto,
        path: &[i32],
        inner: &mut Scope,
        renames: &mut Vec<Rename>,
    ) -> Result<(), Error> {
        let is_proto2 = matches!(self.file.proto.syntax(), "" | "proto2");
        let mut members = BTreeSet::from([names::RESERVED_MEMBER.to_owned()]);
        let mut methods: BTreeSet<String> = (names::RESERVED_METHODS.iter())
            .map(|name| (*name).to_owned())
            .collect();
        for (i, oneof) in message.oneof_decl.iter().enumerate() {
            if is_synthetic(message, i) {
                continue;
            }
            let path = child(path, path::MESSAGE_ONEOF, i);
            let name = oneof.name();
            let member = unless(names::field(name), |name| members.contains(name));
            let mut type_name = names::message_type(name);
            if inner.has(&type_name) {
                type_name = unless(names::other_oneof_type(name), |name| inner.has(name));
            }
            if member != names::field(name) || type_name != names::message_type(name) {
                renames.push(Rename::oneof(
                    path.clone(),
                    name,
                    member.clone(),
                    type_name.clone(),
                ));
            }
            members.insert(member);
            inner.add(type_name, format!("the oneof `{name}`"), &path)?;
        }
        for (i, field) in message.field.iter().enumerate() {
            if field.type_() == FieldType::TYPE_GROUP {
                continue;
            }
            let name = field.name();
            if NOT_NAMED.contains(&field.type_name()) {
                let path = child(path, path::MESSAGE_FIELD, i);
                let text = format!(
                    "the generator of messages (protobuf-codegen 3.7) has no name for the type `{}`; an `int32` is the \
                     same on the wire",
                    field.type_name().trim_start_matches('.')
                );
                return Err(self.file.error(&path, &text));
            }
            let in_oneof = field.has_oneof_index() && !field.proto3_optional();
            let has_default = is_proto2
                && field.label() != Label::LABEL_REPEATED
                && field.type_() != FieldType::TYPE_MESSAGE;
            let has_methods = in_oneof || has_default;
            let is_copy = !matches!(
                field.type_(),
                FieldType::TYPE_MESSAGE | FieldType::TYPE_STRING | FieldType::TYPE_BYTES
            );
            let methods_of = |name: &str| match has_methods {
                true => names::field_methods(name, is_copy),
                false => Vec::new(),
            };
            let is_free = |member: &str, new: &[String]| {
                (in_oneof || !members.contains(member))
                    && !new.iter().any(|name| methods.contains(name))
            };
            let mut member = names::field(name);
            let mut new = methods_of(name);
            if !is_free(&member, &new) {
                member = unless(member + "_", |name| !is_free(name, &methods_of(name)));
                new = methods_of(&member);
                let path = child(path, path::MESSAGE_FIELD, i);
                renames.push(Rename::field(path, name, member.clone()));
            }
            if !in_oneof {
                members.insert(member);
            }
            methods.extend(new);
        }
        Ok(())
    }

    fn enumeration(
        &mut self,
        enumeration: &EnumDescriptorProto,
        path: &[i32],
    ) -> Result<(), Error> {
        let name = enumeration.name();
        let what = format!("the enum `{name}`");
        self.add(names::message_type(name), what, path)?;
        self.enum_values(enumeration, path)
    }

    /// The values of an enum, of which none is renamed: their names stand in the defaults of fields too.
    fn enum_values(&self, enumeration: &EnumDescriptorProto, path: &[i32]) -> Result<(), Error> {
        let mut values = Scope::new(self.file);
        for (i, value) in enumeration.value.iter().enumerate() {
            values.add(
                names::enum_value(value.name()),
                format!("the value `{}`", value.name()),
                &child(path, path::ENUM_VALUE, i),
            )?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: &DescriptorProto,
        path: &[i32],
        renames: &mut Vec<Rename>,
    ) -> Result<(), Error> {
        if message.options.map_entry() {
            return Ok(());
        }
        let name = message.name();
        self.add(
            names::message_type(name),
            format!("the message `{name}`"),
            path,
        )?;

        let mut inner = Scope::new(self.file);
        for (i, nested) in message.nested_type.iter().enumerate() {
            inner.message(nested, &child(path, path::MESSAGE_NESTED, i), renames)?;
        }
        for (i, nested) in message.enum_type.iter().enumerate() {
            let path = child(path, path::MESSAGE_ENUM, i);
            inner.enumeration(nested, &path)?;
        }
        self.members(message, path, &mut inner, renames)?;
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

/// `name`, with as many underscores behind it as it takes.
fn unless(mut name: String, taken: impl Fn(&str) -> bool) -> String {
    while taken(&name) {
        name.push('_');
    }
    name
}

/// Whether a oneof is not in the file but stands for an `optional` field of proto3.
fn is_synthetic(message: &DescriptorProto, oneof: usize) -> bool {
    (message.field.iter())
        .any(|field| field.proto3_optional() && field.oneof_index == Some(oneof as i32))
}
