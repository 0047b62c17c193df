//! The durable log of all groups of a node, as a state machine over disk requests
