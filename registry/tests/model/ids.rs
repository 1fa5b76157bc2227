//! Ids, sessions and incarnations out of a seed, so that a schedule replays to the letter.

use base64::{
    Engine,
    alphabet::Alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use fastrand::Rng;
use registry::{Incarnation, Session, SocketId};

const SORTED: GeneralPurpose = match Alphabet::new("-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz") {
    Ok(alphabet) => GeneralPurpose::new(&alphabet, NO_PAD),
    Err(_) => unreachable!(),
};

pub fn session(rng: &mut Rng) -> Session {
    Session::parse(&SORTED.encode(rng.u64(..).to_be_bytes())).expect("eight bytes are a session")
}

/// A later one sorts after an earlier one, as the real ones do.
pub fn incarnation(instance: &str, now: u64, rng: &mut Rng) -> Incarnation {
    let mark = u128::from(now) << 80 | u128::from(rng.u64(..));
    Incarnation::parse(&format!("{instance}.{}", SORTED.encode(mark.to_be_bytes()))).expect("sixteen bytes are a mark")
}

/// When a life began.
pub fn began(of: &Incarnation) -> u64 {
    let bytes = SORTED.decode(of.mark()).expect("a mark");
    bytes[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
}

/// An id made at that time, in that partition.
pub fn socket(now: u64, partition: usize, rng: &mut Rng) -> SocketId {
    let mut noise = [0; 10];
    rng.fill(&mut noise);
    noise[9] = u8::try_from(partition).expect("there are 64 of them");
    let id = uuid::Builder::from_unix_timestamp_millis(now, &noise).into_uuid();
    SocketId::parse(&format!("ws_{id}")).expect("it is a v7 uuid")
}

/// `n` bytes of noise as text, for what is only compared.
pub fn short(n: u64) -> String {
    SORTED.encode(n.to_be_bytes())
}
