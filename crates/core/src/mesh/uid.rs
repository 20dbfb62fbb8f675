//! Uids: the one thing by which two objects of the same name are told apart. It must not make any.

use crate::name::Text;
use std::fmt;
use uuid::Uuid;

/// A `metadata.uid`. Kubernetes makes UUIDs, which take two words here instead of a text of 36 characters; whatever else comes stays as it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uid(Inner);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Inner {
    Uuid(Uuid),
    Other(Text),
}

impl Uid {
    fn text<'a>(&'a self, room: &'a mut [u8; uuid::fmt::Hyphenated::LENGTH]) -> &'a str {
        match &self.0 {
            Inner::Uuid(uuid) => uuid.hyphenated().encode_lower(room),
            Inner::Other(text) => text,
        }
    }
}

/// None was said: the empty text.
impl Default for Uid {
    fn default() -> Self {
        Self(Inner::Other(Text::default()))
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        // Only what is written again as it came.
        let uuid = Uuid::try_parse(text).ok();
        let same = |uuid: &Uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text;
        Self(uuid.filter(same).map_or_else(|| Inner::Other(text.into()), Inner::Uuid))
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl PartialEq<str> for Uid {
    fn eq(&self, other: &str) -> bool {
        self.text(&mut [0; _]) == other
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; _]))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(&mut [0; _]), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_written_as_it_came_and_a_uuid_takes_no_text() {
        let uuid = "0b7b2e53-9d1c-4f0e-8a55-2f6c1d3e4a5b";
        let others = ["", "u", "uid-x/a", &uuid.to_uppercase(), &uuid.replace('-', ""), &format!("{{{uuid}}}")];
        for text in others.into_iter().chain([uuid]) {
            let uid = Uid::from(text);
            assert_eq!((uid.to_string().as_str(), format!("{uid:?}")), (text, format!("{text:?}")));
            assert_eq!(uid, *text);
            assert_eq!(matches!(uid.0, Inner::Uuid(_)), text == uuid, "{text}");
        }
        assert_ne!(Uid::from(uuid), Uid::from(uuid.to_uppercase()), "they are compared as texts");
        assert!(size_of::<Uid>() <= 24);
    }
}
