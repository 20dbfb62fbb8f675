//! Inventory: what the user says, typed, by kind and name; it may dangle. It must not judge; `plan` does.

mod at;
pub mod facts;
mod key;
mod observed;
mod probes;
mod store;

pub use key::{GATEWAY_GROUP, GATEWAY_X_GROUP, HEDDLE_GROUP, Key, Kind};
pub use observed::{Observed, Unreadable, admit, observe};
pub use store::{Fact, Inventory, NAMESPACE_NAME_LABEL};

/// A change of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is there now, like this. Boxed, because a removal is small.
    Set(Box<Observed>),
    /// It is gone. Removing what is not there is no error.
    Remove(Key),
}

impl Change {
    /// A change as a source says it.
    pub fn read(change: crate::source::Change) -> Result<Self, Unreadable> {
        match change {
            crate::source::Change::Upsert(_, object) => observe(&object).map(|observed| Self::Set(Box::new(observed))),
            crate::source::Change::Read(_, observed) => Ok(Self::Set(observed)),
            crate::source::Change::Remove(key) => {
                let kind = Kind::ALL.into_iter().find(|k| k.as_str() == &*key.kind && k.group() == &*key.group);
                let kind = kind.ok_or_else(|| Unreadable { key: None, flaws: Vec::new() })?;
                Ok(Self::Remove(Key::new(kind, mesh_core::name::NsName::new(key.namespace, key.name))))
            }
        }
    }

    /// The object that changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Set(observed) => &observed.key,
            Self::Remove(key) => key,
        }
    }
}

#[cfg(test)]
mod tests;
