//! One node: joins protocol, log and state machine
