//! As much of JSON Schema as our own schemas use.

use serde_json::Value;

/// What of a document the schema does not allow; empty if it is as the schema says.
pub fn check(schema: &str, document: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let value: Value = serde_json::from_str(document).expect("JSON");
    faults(&schema, &value, "", &schema)
}

/// What of a value the schema does not allow. It knows the words of JSON Schema that ours has, and
/// refuses every other.
fn faults(schema: &Value, value: &Value, at: &str, root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (word, rule) in schema.as_object().expect("a schema") {
        let holds = match word.as_str() {
            "$schema" | "title" | "description" | "$defs" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|name| name.strip_prefix("#/$defs/"));
                let target = &root["$defs"][name.expect("a reference into $defs")];
                found.extend(faults(target, value, at, root));
                true
            }
            "oneOf" => {
                let each: Vec<Vec<String>> = rule
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(|one| faults(one, value, at, root))
                    .collect();
                let fit = each.iter().filter(|faults| faults.is_empty()).count();
                if fit != 1 {
                    found.extend(each.into_iter().flatten());
                }
                fit == 1
            }
            "type" => {
                let is = |name: &Value| match name.as_str().expect("a type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                };
                rule.as_array()
                    .map_or_else(|| is(rule), |types| types.iter().any(is))
            }
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value
                .as_u64()
                .is_none_or(|number| number >= rule.as_u64().expect("a number")),
            "maximum" => value
                .as_u64()
                .is_none_or(|number| number <= rule.as_u64().expect("a number")),
            "maxItems" => value
                .as_array()
                .is_none_or(|list| list.len() as u64 <= rule.as_u64().expect("a number")),
            "pattern" => {
                assert_eq!(rule, "^[0-9a-f]{8}$");
                value.as_str().is_none_or(|text| {
                    text.len() == 8
                        && text
                            .bytes()
                            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                })
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(rule, item, &format!("{at}[{index}]"), root));
                }
                true
            }
            "required" => rule.as_array().expect("a list").iter().all(|name| {
                value
                    .as_object()
                    .is_none_or(|object| object.contains_key(name.as_str().expect("a name")))
            }),
            "additionalProperties" => {
                assert_eq!(rule, false);
                let known = schema["properties"].as_object().expect("properties");
                value
                    .as_object()
                    .is_none_or(|object| object.keys().all(|name| known.contains_key(name)))
            }
            "properties" => {
                for (name, rule) in rule.as_object().expect("properties") {
                    if let Some(value) = value.get(name) {
                        found.extend(faults(rule, value, &format!("{at}.{name}"), root));
                    }
                }
                true
            }
            other => panic!("{other}"),
        };
        if !holds {
            found.push(format!("{at}: {word}"));
        }
    }
    found
}
