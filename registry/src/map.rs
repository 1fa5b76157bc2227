//! Maps of what instances make themselves: ids, and hashes of names. Each call looks into a dozen of them, so their
//! hasher is a quick one. It has a seed of its own in every process and map, which keeps strangers from choosing keys
//! that fall together; names as they chose them stay with the maps of the standard library all the same.

/// Hashes keys that instances make.
pub type Seed = foldhash::fast::RandomState;

/// As [`std::collections::HashMap`].
pub type Map<K, V> = std::collections::HashMap<K, V, Seed>;

/// As [`std::collections::HashSet`].
pub type Set<K> = std::collections::HashSet<K, Seed>;
