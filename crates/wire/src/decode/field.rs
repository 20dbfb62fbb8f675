//! Single fields: how each basic type is doubted and how an error learns its path. It must not know resources.

use crate::id::{BadResourceId, parse_name};
use http::{HeaderName, HeaderValue};
use mesh_core::{
    mesh::{HostPattern, Uid},
    name::{NsName, Text, shared},
};
use std::{net::IpAddr, time::Duration};

/// Longest text of a field. Kubernetes ends header values and patterns at 4,096 bytes; twice that leaves room.
pub const TEXT_MAX: usize = 8 * 1024;

/// Longest list of a field. An object of 1.5 MiB cannot hold more endpoints, and nothing else is as long.
pub const LIST_MAX: usize = 16 * 1024;

/// Longest host name (RFC 1035 §2.3.4).
const HOST_MAX: usize = 253;

/// Longest time: 10 years, so that adding it to a clock never overflows.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A field that was refused.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) field: String,
    pub(super) reason: String,
}

impl Bad {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { field: String::new(), reason: reason.into() }
    }
}

impl From<BadResourceId> for Bad {
    fn from(e: BadResourceId) -> Self {
        Self::new(e.to_string())
    }
}

/// Says where the error is while it travels outwards.
pub(super) trait At {
    fn at(self, field: &str) -> Self;
    fn item(self, field: &str, index: usize) -> Self;
}

impl<T> At for Result<T, Bad> {
    fn at(self, field: &str) -> Self {
        self.map_err(|mut bad| {
            let dot = if bad.field.is_empty() || bad.field.starts_with('[') { "" } else { "." };
            bad.field = format!("{field}{dot}{}", bad.field);
            bad
        })
    }

    fn item(self, field: &str, index: usize) -> Self {
        match self {
            Ok(v) => Ok(v),
            bad => bad.at(&format!("[{index}]")).at(field),
        }
    }
}

/// Each item of a bounded list.
pub(super) fn list<T, U>(field: &str, items: Vec<T>, each: impl Fn(T) -> Result<U, Bad>) -> Result<Vec<U>, Bad> {
    if items.len() > LIST_MAX {
        return Err(Bad::new(format!("has {} items, more than {LIST_MAX}", items.len()))).at(field);
    }
    let mut list: Vec<U> =
        items.into_iter().enumerate().map(|(i, item)| each(item).item(field, i)).collect::<Result<_, Bad>>()?;
    // It may have been collected in the room of the messages, which are larger and had room for more.
    list.shrink_to_fit();
    Ok(list)
}

/// A list with at least one item.
pub(super) fn some<T>(field: &str, items: Vec<T>) -> Result<Vec<T>, Bad> {
    if items.is_empty() { Err(Bad::new("is empty")).at(field) } else { Ok(items) }
}

/// A message that must be there.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Bad> {
    value.ok_or_else(|| Bad::new("is missing")).at(field)
}

/// A choice that must be made: 0 and numbers from the future are refused.
pub(super) fn choice<E: TryFrom<i32> + PartialEq + Default>(field: &str, value: i32) -> Result<E, Bad> {
    match E::try_from(value) {
        Ok(e) if e != E::default() => Ok(e),
        _ => Err(Bad::new(format!("{value} is not a value of this enum"))).at(field),
    }
}

pub(super) fn text(value: String) -> Result<Text, Bad> {
    if value.len() > TEXT_MAX { Err(too_long(&value)) } else { Ok(value.into()) }
}

pub(super) fn uid(value: String) -> Result<Uid, Bad> {
    if value.len() > TEXT_MAX { Err(too_long(&value)) } else { Ok(value.into()) }
}

fn too_long(value: &str) -> Bad {
    Bad::new(format!("is {} bytes long, more than {TEXT_MAX}", value.len()))
}

/// A text that many resources bear.
pub(super) fn name(value: String) -> Result<Text, Bad> {
    if value.len() > TEXT_MAX { text(value) } else { Ok(shared(&value)) }
}

/// A text that is not empty.
pub(super) fn word(value: String) -> Result<Text, Bad> {
    if value.is_empty() { Err(Bad::new("is empty")) } else { text(value) }
}

pub(super) fn ns_name(value: String) -> Result<NsName, Bad> {
    parse_name(&value).ok_or_else(|| Bad::new(format!("{:?} is not of the form namespace/name", shorten(&value))))
}

pub(super) fn address(value: Vec<u8>) -> Result<IpAddr, Bad> {
    if let Ok(v4) = <[u8; 4]>::try_from(value.as_slice()) {
        return Ok(v4.into());
    }
    match <[u8; 16]>::try_from(value.as_slice()) {
        Ok(v6) => Ok(v6.into()),
        Err(_) => Err(Bad::new(format!("an address has 4 or 16 bytes, not {}", value.len()))),
    }
}

/// A port that can be dialled.
pub(super) fn port(value: u32) -> Result<u16, Bad> {
    match u16::try_from(value) {
        Ok(p) if p != 0 => Ok(p),
        _ => Err(Bad::new(format!("{value} is not a port (1 to 65535)"))),
    }
}

/// A time within `least` and [`TIME_MAX`].
pub(super) fn time(value: u64, least: Duration) -> Result<Duration, Bad> {
    let time = Duration::from_nanos(value);
    if time < least || time > TIME_MAX {
        return Err(Bad::new(format!("{time:?} is not between {least:?} and {TIME_MAX:?}")));
    }
    Ok(time)
}

/// A number within bounds.
pub(super) fn number(value: u32, least: u32, most: u32) -> Result<u32, Bad> {
    if value < least || value > most {
        return Err(Bad::new(format!("{value} is not between {least} and {most}")));
    }
    Ok(value)
}

pub(super) fn header_name(value: &str) -> Result<HeaderName, Bad> {
    value.parse().map_err(|_| Bad::new(format!("{:?} is not a header name", shorten(value))))
}

pub(super) fn header_value(value: &[u8]) -> Result<HeaderValue, Bad> {
    if value.len() > TEXT_MAX {
        return Err(Bad::new(format!("is {} bytes long, more than {TEXT_MAX}", value.len())));
    }
    HeaderValue::from_bytes(value).map_err(|_| Bad::new("is not a header value"))
}

/// A host name or `*.` and one.
pub(super) fn host(value: String) -> Result<HostPattern, Bad> {
    let pattern = match value.strip_prefix("*.") {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact(value.as_str().into()),
    };
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = &pattern;
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let label = |l: &str| !l.is_empty() && l.bytes().all(byte);
    if name.len() > HOST_MAX || !name.split('.').all(label) {
        return Err(Bad::new(format!("{:?} is not a lower case host name or *.HOST", shorten(&value))));
    }
    Ok(pattern)
}

/// The start of a peer's text, for an error.
pub(super) fn shorten(value: &str) -> String {
    value.chars().take(super::QUOTE_MAX).collect()
}
