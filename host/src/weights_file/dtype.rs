//! The types of elements, by PyTorch's names.

use std::fmt;

use crate::data;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Complex128,
    Complex64,
    Complex32,
    F8E4m3fn,
    F8E4m3fnuz,
    F8E5m2,
    F8E5m2fnuz,
    F8E8m0fnu,
    /// Less than a byte, of which safetensors has several.
    Narrow,
}

impl Dtype {
    pub(super) const ALL: [Dtype; 22] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
        Self::Complex128,
        Self::Complex64,
        Self::Complex32,
        Self::F8E4m3fn,
        Self::F8E4m3fnuz,
        Self::F8E5m2,
        Self::F8E5m2fnuz,
        Self::F8E8m0fnu,
        Self::Narrow,
    ];

    /// Its name as an attribute of `torch`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "bool",
            Self::Complex128 => "complex128",
            Self::Complex64 => "complex64",
            Self::Complex32 => "complex32",
            Self::F8E4m3fn => "float8_e4m3fn",
            Self::F8E4m3fnuz => "float8_e4m3fnuz",
            Self::F8E5m2 => "float8_e5m2",
            Self::F8E5m2fnuz => "float8_e5m2fnuz",
            Self::F8E8m0fnu => "float8_e8m0fnu",
            Self::Narrow => "a dtype of less than a byte",
        }
    }

    /// The bytes of an element; 0 for those of less than one.
    pub fn size(self) -> usize {
        match self {
            Self::Complex128 => 16,
            Self::F64 | Self::I64 | Self::U64 | Self::Complex64 => 8,
            Self::F32 | Self::I32 | Self::U32 | Self::Complex32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F8E4m3fn | Self::F8E4m3fnuz | Self::F8E5m2 | Self::F8E5m2fnuz | Self::F8E8m0fnu => 1,
            Self::Narrow => 0,
        }
    }

    /// The one with this name in `torch`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The one of a class of storages, such as `FloatStorage`.
    pub fn of_storage(class: &str) -> Option<Self> {
        Some(match class.strip_suffix("Storage")? {
            "Double" => Self::F64,
            "Float" => Self::F32,
            "Half" => Self::F16,
            "BFloat16" => Self::Bf16,
            "Long" => Self::I64,
            "Int" => Self::I32,
            "Short" => Self::I16,
            "Char" => Self::I8,
            "Byte" => Self::U8,
            "Bool" => Self::Bool,
            "ComplexDouble" => Self::Complex128,
            "ComplexFloat" => Self::Complex64,
            _ => return None,
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl From<safetensors::Dtype> for Dtype {
    fn from(dtype: safetensors::Dtype) -> Self {
        use safetensors::Dtype as Stored;
        match dtype {
            Stored::F64 => Self::F64,
            Stored::F32 => Self::F32,
            Stored::F16 => Self::F16,
            Stored::BF16 => Self::Bf16,
            Stored::I64 => Self::I64,
            Stored::I32 => Self::I32,
            Stored::I16 => Self::I16,
            Stored::I8 => Self::I8,
            Stored::U64 => Self::U64,
            Stored::U32 => Self::U32,
            Stored::U16 => Self::U16,
            Stored::U8 => Self::U8,
            Stored::BOOL => Self::Bool,
            Stored::C64 => Self::Complex64,
            Stored::F8_E4M3 => Self::F8E4m3fn,
            Stored::F8_E4M3FNUZ => Self::F8E4m3fnuz,
            Stored::F8_E5M2 => Self::F8E5m2,
            Stored::F8_E5M2FNUZ => Self::F8E5m2fnuz,
            Stored::F8_E8M0 => Self::F8E8m0fnu,
            // The library may learn others, which are no dtypes of a weight either.
            _ => Self::Narrow,
        }
    }
}

impl From<data::Element> for Dtype {
    fn from(element: data::Element) -> Self {
        match element {
            data::Element::F64 => Self::F64,
            data::Element::F32 => Self::F32,
            data::Element::F16 => Self::F16,
            data::Element::Bf16 => Self::Bf16,
            data::Element::I64 => Self::I64,
            data::Element::I32 => Self::I32,
            data::Element::I16 => Self::I16,
            data::Element::I8 => Self::I8,
            data::Element::U64 => Self::U64,
            data::Element::U32 => Self::U32,
            data::Element::U16 => Self::U16,
            data::Element::U8 => Self::U8,
            data::Element::Bool => Self::Bool,
        }
    }
}
