//! At: a place in a JSON document that knows its path, so that what cannot be read is named. It must not know kinds.

use crate::api::schema::Flaw;
use serde_json::Value;

/// A value and how we came to it. The path is written out only when something is wrong.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    value: &'a Value,
    from: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(usize),
}

type Read<T> = Result<T, Flaw>;

impl<'a> At<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, from: None, step: Step::Root }
    }

    pub(super) fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        At { value: &self.value[name], from: Some(self), step: Step::Field(name) }
    }

    /// The items of a list; none if it is absent.
    pub(super) fn items<'b>(&'b self) -> Read<impl Iterator<Item = At<'b>>> {
        let list: &[Value] = match self.value {
            Value::Null => &[],
            Value::Array(list) => list,
            _ => return Err(self.flaw("must be a list")),
        };
        Ok(list.iter().enumerate().map(move |(i, value)| At { value, from: Some(self), step: Step::Item(i) }))
    }

    pub(super) fn text(&self) -> Read<Option<&'a str>> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(s) => Ok(Some(s)),
            _ => Err(self.flaw("must be a string")),
        }
    }

    pub(super) fn flag(&self) -> Read<Option<bool>> {
        match self.value {
            Value::Null => Ok(None),
            Value::Bool(b) => Ok(Some(*b)),
            _ => Err(self.flaw("must be true or false")),
        }
    }

    pub(super) fn port(&self) -> Read<Option<u16>> {
        match self.value {
            Value::Null => Ok(None),
            Value::Number(n) => match n.as_u64().and_then(|n| u16::try_from(n).ok()) {
                Some(port) if port > 0 => Ok(Some(port)),
                _ => Err(self.flaw("must be a port, 1 to 65535")),
            },
            _ => Err(self.flaw("must be a number")),
        }
    }

    pub(super) fn parsed<T: std::str::FromStr>(&self, what: &str) -> Read<Option<T>> {
        let Some(text) = self.text()?.filter(|t| !t.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.flaw(&format!("{text:?} is not {what}")))
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn flaw(&self, reason: &str) -> Flaw {
        Flaw { field: self.path(), reason: reason.into() }
    }

    fn path(&self) -> String {
        let mut path = self.from.map(At::path).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Item(i) => path.push_str(&format!("[{i}]")),
        }
        path
    }
}
