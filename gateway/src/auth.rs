//! Who somebody is, by what they bring.

pub mod jwt;
