//! The one copy loop: bytes between two connections, half close and reset passed on. It must not know what the bytes mean.
