//! The key of a column: every field that decides its bytes, and one digest over them.
//!
//! Knows nothing of what the fields mean. The digest is taken over a canonical form (names sorted, no spaces), so that two
//! programs, or two versions of one, that list the same fields in another order mean the same column.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Ordered fields, each with its value: "everything that decides the bytes". Equal when the digests are.
#[derive(Debug, Clone, Default)]
pub struct Key(Vec<(String, Value)>);

/// A field in which two keys differ. `None` where one of them lacks the field.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyDifference {
    /// The field's name.
    pub field: String,
    /// The value asked for.
    pub expected: Option<Value>,
    /// The value of the other key.
    pub found: Option<Value>,
}

impl fmt::Display for KeyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), |v| format!("`{v}`"));
        write!(f, "`{}`: expected {}, found {}", self.field, show(&self.expected), show(&self.found))
    }
}

impl Key {
    /// A key without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// This key with one more field. A field set twice keeps its place and takes the later value.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(field, value);
        self
    }

    /// Sets a field, in place where it exists.
    pub fn set(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        let (field, value) = (field.into(), sorted(value.into()));
        match self.0.iter_mut().find(|(name, _)| *name == field) {
            Some((_, old)) => *old = value,
            None => self.0.push((field, value)),
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == field).map(|(_, value)| value)
    }

    /// The fields in the order they were given.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// BLAKE3 of the canonical form: 64 hex digits.
    pub fn digest(&self) -> String {
        blake3::hash(self.canonical().as_bytes()).to_hex().to_string()
    }

    /// The first 8 hex digits of the digest: the tail of the column's folder name.
    pub fn short(&self) -> String {
        self.digest()[..8].to_owned()
    }

    /// The fields in which `found` differs from this key: first this key's in its order, then those only `found` has.
    pub fn diff(&self, found: &Self) -> Vec<KeyDifference> {
        let own = self.fields().filter(|(name, value)| !found.get(name).is_some_and(|other| same(value, other)));
        let own = own.map(|(name, value)| (name, Some(value), found.get(name)));
        let extra =
            found.fields().filter(|(name, _)| self.get(name).is_none()).map(|(name, value)| (name, None, Some(value)));
        own.chain(extra)
            .map(|(field, expected, found)| KeyDifference {
                field: field.to_owned(),
                expected: expected.cloned(),
                found: found.cloned(),
            })
            .collect()
    }

    fn canonical(&self) -> String {
        let mut text = String::new();
        write_object(&mut text, self.fields().collect());
        text
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl<F: Into<String>, V: Into<Value>> FromIterator<(F, V)> for Key {
    fn from_iter<I: IntoIterator<Item = (F, V)>>(fields: I) -> Self {
        fields.into_iter().fold(Self::new(), |key, (field, value)| key.with(field, value))
    }
}

fn same(a: &Value, b: &Value) -> bool {
    let (mut left, mut right) = (String::new(), String::new());
    write_canonical(&mut left, a);
    write_canonical(&mut right, b);
    left == right
}

/// The value with the members of every object sorted, so that it is written the same whatever order serde_json's maps keep
/// (a feature that any crate of a build can switch on).
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            members.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        plain => plain,
    }
}

/// BLAKE3 of the canonical form of an object without one of its members, in hex.
pub(crate) fn digest_without(members: &serde_json::Map<String, Value>, left_out: &str) -> String {
    let members = members.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| *name != left_out);
    let mut text = String::new();
    write_object(&mut text, members.collect());
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// JSON without spaces, the members of every object sorted by the bytes of their names; strings and numbers as
/// serde_json writes them (shortest float that reads back the same).
fn write_canonical(out: &mut String, value: &Value) {
    match value {
        Value::Object(members) => {
            write_object(out, members.iter().map(|(name, value)| (name.as_str(), value)).collect());
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_canonical(out, item);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn write_object(out: &mut String, mut members: Vec<(&str, &Value)>) {
    members.sort_by_key(|(name, _)| *name);
    out.push('{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        write_canonical(out, value);
    }
    out.push('}');
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, value) in &self.0 {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of key fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Key, A::Error> {
                let mut key = Key::new();
                while let Some((field, value)) = map.next_entry::<String, Value>()? {
                    key.set(field, value);
                }
                Ok(key)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> Key {
        Key::new().with("tensor", "avgpool").with("encoder", json!({"z": 1, "a": [1.5, null, "é\n"]}))
    }

    #[test]
    fn the_canonical_form_sorts_names_at_every_depth() {
        insta::assert_snapshot!(key().canonical(), @r#"{"encoder":{"a":[1.5,null,"é\n"],"z":1},"tensor":"avgpool"}"#);
        assert_eq!(key().digest(), blake3::hash(key().canonical().as_bytes()).to_hex().to_string());
        assert!(key().digest().starts_with(&key().short()) && key().short().len() == 8);
    }

    #[test]
    fn order_of_fields_does_not_matter_but_survives_json() {
        let swapped: Key =
            [("encoder", key().get("encoder").unwrap().clone()), ("tensor", json!("avgpool"))].into_iter().collect();
        assert_eq!(swapped.digest(), key().digest());
        let json = serde_json::to_string(&key()).unwrap();
        assert!(json.starts_with(r#"{"tensor""#));
        let back: Key = serde_json::from_str(&json).unwrap();
        assert_eq!(back.fields().map(|f| f.0).collect::<Vec<_>>(), ["tensor", "encoder"]);
    }

    #[test]
    fn differences_name_the_field_and_both_values() {
        let expected = Key::new().with("tensor", "layer4").with("resize", 224).with("same", true);
        let found = Key::new().with("same", true).with("tensor", "layer3").with("crop", json!([224, 224]));
        let lines: Vec<String> = expected.diff(&found).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        `tensor`: expected `"layer4"`, found `"layer3"`
        `resize`: expected `224`, found nothing
        `crop`: expected nothing, found `[224,224]`
        "#);
        assert!(expected.diff(&expected).is_empty());
    }

    #[test]
    fn an_integer_and_a_float_are_different_values() {
        assert_ne!(Key::new().with("a", 1).digest(), Key::new().with("a", 1.0).digest());
    }
}
