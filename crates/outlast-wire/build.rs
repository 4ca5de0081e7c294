//! Rust of the protobuf messages, and a table of what their fields take in memory.

use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/outlast/v2/session.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    let mut schema = Schema::default();
    for file in &descriptors.file {
        for message in &file.message_type {
            schema.add(file.package(), message.name());
            for nested in &message.nested_type {
                let is_map = nested.options.as_ref().is_some_and(|o| o.map_entry());
                assert!(is_map, "{}: messages in messages have no table here", nested.name());
                schema.maps.push(format!(
                    ".{}.{}.{}",
                    file.package(),
                    message.name(),
                    nested.name()
                ));
            }
        }
    }
    for message in descriptors.file.iter().flat_map(|file| &file.message_type) {
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        let mut row = String::new();
        for field in fields {
            let kind = schema.kind(field.r#type().as_str_name(), field.type_name());
            let many = field.label().as_str_name() == "LABEL_REPEATED";
            write!(row, "Field {{ number: {}, many: {many}, kind: {kind} }}, ", field.number())?;
        }
        schema.rows.push(row);
    }
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("weights.rs"), schema.table()?)?;
    let mut config = prost_build::Config::new();
    // Seldom sent: it would make every message in memory as large.
    config.bytes(["."]).btree_map(["."]).boxed(".outlast.v2.Hello.link");
    config.compile_fds(descriptors)?;
    Ok(())
}

/// The messages of the `.proto`, for the table that `weight` counts by.
#[derive(Default)]
struct Schema {
    names: Vec<String>,
    full: Vec<String>,
    maps: Vec<String>,
    rows: Vec<String>,
}

impl Schema {
    fn add(&mut self, package: &str, name: &str) {
        self.full.push(format!(".{package}.{name}"));
        self.names.push(name.to_owned());
    }

    /// The Rust expression for a field's kind.
    fn kind(&self, kind: &str, type_name: &str) -> String {
        match kind {
            "TYPE_MESSAGE" if self.maps.iter().any(|map| map == type_name) => "Kind::Entry".into(),
            "TYPE_MESSAGE" => {
                let at = self.full.iter().position(|full| full == type_name);
                format!("Kind::Message({})", at.expect("every message is in the files"))
            }
            "TYPE_STRING" => "Kind::Text".into(),
            "TYPE_BYTES" => "Kind::Bytes".into(),
            "TYPE_DOUBLE" | "TYPE_FIXED64" | "TYPE_SFIXED64" => "Kind::Fixed(8)".into(),
            "TYPE_FLOAT" | "TYPE_FIXED32" | "TYPE_SFIXED32" => "Kind::Fixed(4)".into(),
            "TYPE_BOOL" => "Kind::Varint(1)".into(),
            "TYPE_INT32" | "TYPE_UINT32" | "TYPE_SINT32" | "TYPE_ENUM" => "Kind::Varint(4)".into(),
            "TYPE_INT64" | "TYPE_UINT64" | "TYPE_SINT64" => "Kind::Varint(8)".into(),
            other => panic!("fields of {other} have no weight"),
        }
    }

    fn table(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::from("pub(crate) static TYPES: &[Type] = &[\n");
        for (name, row) in self.names.iter().zip(&self.rows) {
            writeln!(out, "Type {{ size: size_of::<crate::v2::{name}>(), fields: &[{row}] }},")?;
        }
        out += "];\n";
        for (at, name) in self.names.iter().enumerate() {
            writeln!(out, "impl Weighed for crate::v2::{name} {{ const TYPE: usize = {at}; }}")?;
        }
        Ok(out)
    }
}
