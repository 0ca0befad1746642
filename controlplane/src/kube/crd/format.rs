//! Formats of numbers that an API server knows. Those of Rust's unsigned ones are none of them: each object that is applied
//! would be answered with a warning for each such field.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};

/// Says the same of every number in `schema` by formats that are known, and bounds.
pub(super) fn known(schema: &mut JSONSchemaProps) {
    let most = match schema.format.as_deref() {
        Some("uint32") => Some(f64::from(u32::MAX)),
        // The format's own bound is below that of a u64.
        Some("uint64") => None,
        _ => return inside(schema),
    };
    schema.format = Some("int64".to_owned());
    schema.minimum = schema.minimum.or(Some(0.0));
    schema.maximum = schema.maximum.or(most);
}

fn inside(schema: &mut JSONSchemaProps) {
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(known);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => known(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(known),
        None => {}
    }
}
