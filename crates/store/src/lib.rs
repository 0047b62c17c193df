//! The replicated MVCC store of Quorate over an ordered key-value engine
