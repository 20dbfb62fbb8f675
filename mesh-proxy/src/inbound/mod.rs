//! Inbound: what peers and strangers open towards a workload; terminated, admitted, delivered. It must not decide who is admitted.
