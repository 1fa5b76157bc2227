//! What a request meets on its way, in order, and who may ask what. The routes are those by which the gateway goes.

use crate::{
    client::table,
    config::{Reading, settings::SETTINGS},
    http::{plane::Plane, routes::ROUTES},
};
use serde_json::{Value, json};

/// What a door asks before 101, stage by stage, and the settings of each. `admission.rs` has them in this order.
const STAGES: [(&str, &[&str]); 7] = [
    ("names", &["WS_REQUIRE", "WS_CODE_PATTERN"]),
    ("origin", &["CORS_ORIGINS"]),
    ("rate", &["RATE_CONNECT"]),
    ("credentials", &["AUTH"]),
    ("upgrade", &[]),
    ("place", &["MAX_SOCKETS"]),
    ("application", &["CONNECT_URL"]),
];

pub fn json(reading: &Reading) -> Value {
    let routes = ROUTES.iter().map(|route| {
        json!({
            "method": route.method.as_str(),
            "path": route.path,
            "who": who(route.plane, reading),
            "about": route.summary,
        })
    });
    json!({ "stages": stages(reading), "routes": routes.collect::<Vec<_>>() })
}

pub fn print(reading: &Reading) {
    say!("a socket meets, before 101: {}", stages(reading).join(" → "));
    let rows: Vec<_> = ROUTES
        .iter()
        .map(|route| {
            [route.method.to_string(), route.path.into(), who(route.plane, reading).into(), route.summary.into()]
        })
        .collect();
    table::print(["method", "path", "who may ask", "what it is"], &rows);
}

fn stages(reading: &Reading) -> Vec<String> {
    let stage = |(stage, names): (&str, &[&str])| {
        let settings: Vec<_> = names.iter().filter_map(|name| setting(name, reading)).collect();
        if settings.is_empty() { stage.to_owned() } else { format!("{stage} ({})", settings.join(", ")) }
    };
    STAGES.map(|(name, names)| stage((name, names))).into()
}

/// As it stands, where somebody has said it or it says something by itself.
fn setting(name: &str, reading: &Reading) -> Option<String> {
    let kind = SETTINGS.iter().find(|setting| setting.name == name)?.kind;
    let text = &reading.sources.get(name)?.text;
    (!text.is_empty()).then(|| format!("{name}={}", kind.shown(text)))
}

/// As `http/plane.rs` lets them through: by a token or a key, and where no token is set this machine alone.
fn who(plane: Plane, reading: &Reading) -> &'static str {
    let is_set = |name: &str| setting(name, reading).is_some();
    match (plane, is_set("API_TOKEN"), is_set("ADMIN_TOKEN")) {
        (Plane::Client, ..) => "anybody whom its stages let in",
        (Plane::Server, true, false) => "API_TOKEN; key of scope call or admin",
        (Plane::Server, true, true) => "API_TOKEN, ADMIN_TOKEN; key of scope call or admin",
        (Plane::Server, false, true) => "this machine; ADMIN_TOKEN; key of scope call or admin",
        (Plane::Server, false, false) => "this machine; key of scope call or admin",
        (Plane::Admin, _, true) => "ADMIN_TOKEN; key of scope admin",
        (Plane::Admin, true, false) => "API_TOKEN; key of scope admin",
        (Plane::Admin, false, false) => "this machine; key of scope admin",
    }
}
