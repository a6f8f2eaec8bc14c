//! Who may speak.
