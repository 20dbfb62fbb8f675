//! Reasons of conditions, as Gateway API v1.7.0 spells them. It must not choose among them.

/// Accepted: yes.
pub const ACCEPTED: &str = "Accepted";
/// Not decided yet.
pub const PENDING: &str = "Pending";
/// A parametersRef that leads nowhere or to something invalid.
pub const INVALID_PARAMETERS: &str = "InvalidParameters";
/// A policy or object that cannot be used.
pub const INVALID: &str = "Invalid";
/// Somebody older has the place.
pub const CONFLICTED: &str = "Conflicted";
/// A policy's target does not exist.
pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
/// No parent, listener or port of that name.
pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
/// allowedRoutes does not admit the route.
pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
/// No hostname in common.
pub const NO_MATCHING_LISTENER_HOSTNAME: &str = "NoMatchingListenerHostname";
/// A value that is not supported.
pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
/// Filters that exclude one another.
pub const INCOMPATIBLE_FILTERS: &str = "IncompatibleFilters";
/// All references lead somewhere.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// No ReferenceGrant permits the reference.
pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
/// A reference to a kind that is not supported.
pub const INVALID_KIND: &str = "InvalidKind";
/// A backend that does not exist.
pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
/// A backend that speaks something else.
pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
/// Served.
pub const PROGRAMMED: &str = "Programmed";
/// Some listener is not valid.
pub const LISTENERS_NOT_VALID: &str = "ListenersNotValid";
/// Some listener's references do not lead anywhere.
pub const LISTENERS_NOT_RESOLVED: &str = "ListenersNotResolved";
/// An address of a type that is not supported.
pub const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
/// No address was assigned.
pub const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
/// An address that was asked for was not assigned.
pub const ADDRESS_NOT_USABLE: &str = "AddressNotUsable";
/// A certificateRef that leads to no certificate.
pub const INVALID_CERTIFICATE_REF: &str = "InvalidCertificateRef";
/// A kind of route that the listener's protocol does not carry.
pub const INVALID_ROUTE_KINDS: &str = "InvalidRouteKinds";
/// Conflicted: no.
pub const NO_CONFLICTS: &str = "NoConflicts";
/// Two listeners with the same hostname.
pub const HOSTNAME_CONFLICT: &str = "HostnameConflict";
/// Two listeners with protocols that do not share a port.
pub const PROTOCOL_CONFLICT: &str = "ProtocolConflict";
/// TLS listeners whose hostnames overlap.
pub const OVERLAPPING_HOSTNAMES: &str = "OverlappingHostnames";
