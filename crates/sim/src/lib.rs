//! A simulated world that drives the production node, log and store
