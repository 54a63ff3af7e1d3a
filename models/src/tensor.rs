//! Tensors: an element type, a shape, and the elements in C order.
//!
//! **Invariant:** a tensor has as many elements as its shape says.

mod batch;

/// Declares the element types: the name of the kind, its name in `bundle.toml`, its Rust type; those of
/// numbers, and the one of texts.
macro_rules! element_types {
    (text $text:ident $text_name:literal, $($number:ident $number_name:literal $rust:ty,)*) => {
        element_types!(@all $($number $number_name $rust,)* $text $text_name String,);
        element_types!(@macros $text $($number $rust,)*);
    };
    (@all $($kind:ident $name:literal $rust:ty,)*) => {
        /// The type of a tensor's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the types' own names")]
        pub enum Dtype {
            $($kind,)*
        }

        impl Dtype {
            /// All of them, by their names in `bundle.toml`.
            pub const ALL: &[(&str, Dtype)] = &[$(($name, Dtype::$kind),)*];

            /// The name in `bundle.toml`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// Bytes of one element; of a text, without its letters.
            pub fn bytes(self) -> usize {
                match self {
                    $(Self::$kind => size_of::<$rust>(),)*
                }
            }
        }

        /// The elements of a tensor, in C order.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "the types' own names")]
        pub enum Elements {
            $($kind(Vec<$rust>),)*
        }

        impl Elements {
            /// None yet, of a type.
            pub fn empty(dtype: Dtype) -> Self {
                match dtype {
                    $(Dtype::$kind => Self::$kind(Vec::new()),)*
                }
            }

            /// As many zeros, of a type.
            pub fn zeros(dtype: Dtype, count: usize) -> Self {
                match dtype {
                    $(Dtype::$kind => Self::$kind(vec![<$rust>::default(); count]),)*
                }
            }

            /// Their type.
            pub fn dtype(&self) -> Dtype {
                match self {
                    $(Self::$kind(_) => Dtype::$kind,)*
                }
            }

            /// How many there are.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$kind(elements) => elements.len(),)*
                }
            }

            /// Whether there is none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        $(impl Element for $rust {
            const DTYPE: Dtype = Dtype::$kind;

            fn of(elements: &Elements) -> Option<&[Self]> {
                match elements {
                    Elements::$kind(own) => Some(own),
                    _ => None,
                }
            }

            fn of_mut(elements: &mut Elements) -> Option<&mut Vec<Self>> {
                match elements {
                    Elements::$kind(own) => Some(own),
                    _ => None,
                }
            }
        })*
    };
    (@macros $text:ident $($number:ident $rust:ty,)*) => {
        /// Evaluates an expression with the elements as a slice or vector of their Rust type, and
        /// another where they are texts.
        macro_rules! with_elements {
            ($elements:expr, $own:ident => $body:expr, $texts:ident => $other:expr) => {
                match $elements {
                    $($crate::tensor::Elements::$number($own) => $body,)*
                    $crate::tensor::Elements::$text($texts) => $other,
                }
            };
        }
        pub(crate) use with_elements;

        /// Evaluates an expression with a name for the Rust type of an element type, and another
        /// where that is text.
        macro_rules! with_type {
            ($dtype:expr, $own:ident => $body:expr, text => $other:expr) => {
                match $dtype {
                    $($crate::tensor::Dtype::$number => {
                        type $own = $rust;
                        $body
                    })*
                    $crate::tensor::Dtype::$text => $other,
                }
            };
        }
        pub(crate) use with_type;
    };
}

element_types! {
    text Text "string",
    Bool "bool" bool,
    U8 "u8" u8,
    I8 "i8" i8,
    U16 "u16" u16,
    I16 "i16" i16,
    U32 "u32" u32,
    I32 "i32" i32,
    U64 "u64" u64,
    I64 "i64" i64,
    F16 "f16" half::f16,
    F32 "f32" f32,
    F64 "f64" f64,
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is an element type.
pub trait Element: Clone + Default + Sized + 'static {
    /// Which.
    const DTYPE: Dtype;

    /// The elements, if they are of this type.
    fn of(elements: &Elements) -> Option<&[Self]>;

    /// The elements, to be changed, if they are of this type.
    fn of_mut(elements: &mut Elements) -> Option<&mut Vec<Self>>;
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Elements,
}

/// A tensor's shape does not have as many elements as there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shape {shape:?} does not have {count} elements")]
pub struct ShapeError {
    /// The shape.
    pub shape: Vec<usize>,
    /// Number of elements given.
    pub count: usize,
}

impl Tensor {
    /// A tensor of these elements.
    ///
    /// # Errors
    /// The shape has more or fewer elements.
    pub fn new(shape: Vec<usize>, elements: Elements) -> Result<Self, ShapeError> {
        if size_of_shape(&shape) == Some(elements.len()) {
            return Ok(Self { shape, elements });
        }
        Err(ShapeError { count: elements.len(), shape })
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize], dtype: Dtype) -> Self {
        let elements = Elements::zeros(dtype, shape.iter().product());
        Self { shape: shape.to_vec(), elements }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, in C order.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements, without the shape.
    pub fn into_elements(self) -> Elements {
        self.elements
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.elements.dtype()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The elements, if they are of this type.
    pub fn of<T: Element>(&self) -> Option<&[T]> {
        T::of(&self.elements)
    }

    /// The elements, to be changed in place, if they are of this type.
    pub fn of_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        T::of_mut(&mut self.elements).map(Vec::as_mut_slice)
    }

    /// Becomes a copy of these elements; memory that is there is used again.
    ///
    /// # Errors
    /// The shape has more or fewer elements.
    pub fn copy_from<T: Element>(
        &mut self,
        shape: &[usize],
        elements: &[T],
    ) -> Result<(), ShapeError> {
        if size_of_shape(shape) != Some(elements.len()) {
            return Err(ShapeError { shape: shape.to_vec(), count: elements.len() });
        }
        if T::of(&self.elements).is_none() {
            self.elements = Elements::empty(T::DTYPE);
        }
        if let Some(own) = T::of_mut(&mut self.elements) {
            own.clear();
            own.extend_from_slice(elements);
        }
        self.shape.clear();
        self.shape.extend_from_slice(shape);
        Ok(())
    }

    /// Becomes as many zeros, or what was there of that type; memory that is there is used again.
    pub fn reset(&mut self, shape: &[usize], dtype: Dtype) {
        let count = shape.iter().product();
        if self.dtype() == dtype {
            with_elements!(
                &mut self.elements,
                own => own.resize_with(count, Default::default),
                texts => texts.resize_with(count, Default::default)
            );
        } else {
            self.elements = Elements::zeros(dtype, count);
        }
        self.shape.clear();
        self.shape.extend_from_slice(shape);
    }

    /// The elements as f32, as near as that comes; of a text the number that it is, if it is one.
    #[allow(clippy::cast_possible_truncation, reason = "f64 and whole numbers become the nearest")]
    #[allow(clippy::cast_precision_loss, reason = "f64 and whole numbers become the nearest")]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.elements {
            Elements::Bool(e) => e.iter().map(|x| f32::from(u8::from(*x))).collect(),
            Elements::U8(e) => e.iter().map(|x| f32::from(*x)).collect(),
            Elements::I8(e) => e.iter().map(|x| f32::from(*x)).collect(),
            Elements::U16(e) => e.iter().map(|x| f32::from(*x)).collect(),
            Elements::I16(e) => e.iter().map(|x| f32::from(*x)).collect(),
            Elements::U32(e) => e.iter().map(|x| *x as f32).collect(),
            Elements::I32(e) => e.iter().map(|x| *x as f32).collect(),
            Elements::U64(e) => e.iter().map(|x| *x as f32).collect(),
            Elements::I64(e) => e.iter().map(|x| *x as f32).collect(),
            Elements::F16(e) => e.iter().map(|x| x.to_f32()).collect(),
            Elements::F32(e) => e.clone(),
            Elements::F64(e) => e.iter().map(|x| *x as f32).collect(),
            Elements::Text(e) => e.iter().map(|x| x.parse().unwrap_or(f32::NAN)).collect(),
        }
    }
}

fn size_of_shape(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |size, dim| size.checked_mul(*dim))
}
