//! What a state dictionary is made of, and how its parts are made of each other: by hand, where Python would call what
//! the file names.
//!
//! Everything lies flat in an [`Arena`] and is referred to by number, so that neither cycles nor depth cost anything.

/// A number, or the number of a thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// None, true, false, and numbers with a point: nothing of a tensor.
    Nothing,
    Integer(i64),
    Thing(usize),
}

#[derive(Debug, PartialEq)]
pub(super) enum Thing {
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dictionary(Vec<(Value, Value)>),
    /// A name that the program may use.
    Name(Known),
    Storage(Storage),
    Tensor(Tensor),
}

/// The callables and types of a state dictionary.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// Such as `FloatStorage`.
    Storage(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Such as `FloatStorage`.
    pub(super) kind: String,
    /// Its bytes are in `data/KEY`.
    pub(super) key: String,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    /// In elements.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
}

/// Longest name of a callable, a type or a storage: it is copied with each that is made of it.
const MAX_NAME_BYTES: usize = 256;
/// Most axes of a tensor, for the same reason.
const MAX_AXES: usize = 16;

/// Errors are texts.
#[derive(Default)]
pub(super) struct Arena(Vec<Thing>);

impl Arena {
    pub(super) fn add(&mut self, thing: Thing) -> Value {
        self.0.push(thing);
        Value::Thing(self.0.len() - 1)
    }

    pub(super) fn get(&self, value: Value) -> Option<&Thing> {
        match value {
            Value::Thing(number) => self.0.get(number),
            Value::Nothing | Value::Integer(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, value: Value) -> Option<&mut Thing> {
        match value {
            Value::Thing(number) => self.0.get_mut(number),
            Value::Nothing | Value::Integer(_) => None,
        }
    }

    /// Those of a dictionary; none of anything else.
    pub(super) fn items(&self, value: Value) -> &[(Value, Value)] {
        match self.get(value) {
            Some(Thing::Dictionary(items)) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match self.get(value) {
            Some(Thing::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn tensor(&self, value: Value) -> Option<&Tensor> {
        match self.get(value) {
            Some(Thing::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }

    /// What the program may call or mention.
    pub(super) fn known(module: &str, name: &str) -> Result<Thing, String> {
        if module.len().max(name.len()) > MAX_NAME_BYTES {
            return Err(format!("a name has more than {MAX_NAME_BYTES} bytes"));
        }
        Ok(Thing::Name(match (module, name) {
            ("collections", "OrderedDict") => Known::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Known::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Known::RebuildParameter,
            ("torch", storage) if storage.ends_with("Storage") => Known::Storage(storage.to_owned()),
            _ => {
                let (module, name) = (module.escape_debug(), name.escape_debug());
                return Err(format!(
                    "it asks for {module}.{name}, and only tensors and dictionaries are read: save the model's \
                     state_dict, or take safetensors"
                ));
            }
        }))
    }

    /// What a callable would give.
    pub(super) fn called(&self, callable: Value, arguments: Value) -> Result<Thing, String> {
        let Some(Thing::Tuple(arguments)) = self.get(arguments) else {
            return Err("it calls something without arguments".to_owned());
        };
        match (self.get(callable), &arguments[..]) {
            (Some(Thing::Name(Known::OrderedDict)), []) => Ok(Thing::Dictionary(Vec::new())),
            (Some(Thing::Name(Known::RebuildTensor)), [storage, offset, shape, strides, ..]) => {
                Ok(Thing::Tensor(self.view(*storage, *offset, *shape, *strides)?))
            }
            (Some(Thing::Name(Known::RebuildParameter)), [tensor, ..]) => {
                let tensor = self.tensor(*tensor).ok_or("a parameter is no tensor")?;
                Ok(Thing::Tensor(tensor.clone()))
            }
            _ => Err("it calls what it may not, or with other arguments than torch.save".to_owned()),
        }
    }

    /// What a persistent id stands for: `("storage", TYPE, KEY, DEVICE, ELEMENTS)`.
    pub(super) fn persistent(&self, id: Value) -> Result<Thing, String> {
        let no_storage = "a persistent id is no storage";
        let Some(Thing::Tuple(parts)) = self.get(id) else { return Err(no_storage.to_owned()) };
        let [_, kind, key, _, _] = parts[..] else { return Err(no_storage.to_owned()) };
        match (self.get(kind), self.text(key)) {
            (Some(Thing::Name(Known::Storage(kind))), Some(key)) if key.len() <= MAX_NAME_BYTES => {
                Ok(Thing::Storage(Storage { kind: kind.clone(), key: key.to_owned() }))
            }
            _ => Err(no_storage.to_owned()),
        }
    }

    fn view(&self, storage: Value, offset: Value, shape: Value, strides: Value) -> Result<Tensor, String> {
        let Some(Thing::Storage(storage)) = self.get(storage) else {
            return Err("a tensor has no storage".to_owned());
        };
        let (offset, shape, strides) = (size(offset)?, self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return Err("a tensor has other axes in its shape than in its strides".to_owned());
        }
        Ok(Tensor { storage: storage.clone(), offset, shape, strides })
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>, String> {
        match self.get(value) {
            Some(Thing::Tuple(sizes)) if sizes.len() <= MAX_AXES => {
                sizes.iter().map(|each| size(*each)).collect()
            }
            _ => Err(format!("a shape is no tuple of at most {MAX_AXES}")),
        }
    }
}

fn size(value: Value) -> Result<usize, String> {
    match value {
        Value::Integer(size) => usize::try_from(size).map_err(|_| format!("{size} is no size")),
        Value::Nothing | Value::Thing(_) => Err("a size is no integer".to_owned()),
    }
}
