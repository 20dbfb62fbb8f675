//! The micro benches: what is promised in time, measured in one process. It must hold no code; each bench stands in its own file.
