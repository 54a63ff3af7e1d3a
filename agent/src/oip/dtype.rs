//! Owns the protocol's names for element types.
//!
//! **Invariant:** each element type has one name and one number, and each name is of one type.

use holdfast_models::Dtype;

/// The types, their names in requests and answers, and their numbers in `ModelConfig.data_type`
/// (Triton's `model_config.proto`).
const TYPES: [(Dtype, &str, i32); 13] = [
    (Dtype::Bool, "BOOL", 1),
    (Dtype::U8, "UINT8", 2),
    (Dtype::U16, "UINT16", 3),
    (Dtype::U32, "UINT32", 4),
    (Dtype::U64, "UINT64", 5),
    (Dtype::I8, "INT8", 6),
    (Dtype::I16, "INT16", 7),
    (Dtype::I32, "INT32", 8),
    (Dtype::I64, "INT64", 9),
    (Dtype::F16, "FP16", 10),
    (Dtype::F32, "FP32", 11),
    (Dtype::F64, "FP64", 12),
    (Dtype::Text, "BYTES", 13),
];

/// The name of a type.
pub(super) fn name(dtype: Dtype) -> &'static str {
    row(dtype).map_or("", |(_, name, _)| *name)
}

/// The number of a type in a model's configuration.
pub(super) fn number(dtype: Dtype) -> i32 {
    row(dtype).map_or(0, |(_, _, number)| *number)
}

/// The name of a type in a model's configuration.
pub(super) fn config_name(dtype: Dtype) -> String {
    if dtype == Dtype::Text { "TYPE_STRING".to_owned() } else { format!("TYPE_{}", name(dtype)) }
}

/// The type with this name.
pub(super) fn parse(text: &str) -> Option<Dtype> {
    TYPES.iter().find(|(_, name, _)| *name == text).map(|(dtype, ..)| *dtype)
}

/// All names, for who mistyped one.
pub(super) fn names() -> String {
    TYPES.map(|(_, name, _)| name).join(", ")
}

fn row(dtype: Dtype) -> Option<&'static (Dtype, &'static str, i32)> {
    TYPES.iter().find(|(own, ..)| *own == dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_name_of_its_own() {
        for (_, dtype) in Dtype::ALL {
            assert_eq!(parse(name(*dtype)), Some(*dtype), "{dtype}");
            assert!(number(*dtype) > 0, "{dtype}");
        }
        assert_eq!((parse("fp32"), parse("")), (None, None));
    }
}
