//! The consensus contract of Quorate and the protocols under it
