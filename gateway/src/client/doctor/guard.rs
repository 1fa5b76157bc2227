//! Is closed what is nobody's business: the server plane, asked by a stranger without a token.

use super::{patient::Patient, report::Check};

/// What reveals the fleet or its users. One that streams is closed by its head.
const DOORS: [&str; 4] = ["/api/instances", "/metrics", "/api/debug/sockets", "/api/events"];

pub async fn check(patient: &Patient) -> Check {
    let (mut open, mut said, mut is_direct) = (Vec::new(), Vec::new(), true);
    for path in DOORS {
        let asked = patient.asked("GET", path).with("Connection", "close");
        match patient.begin(&asked).await {
            Ok(heard) if heard.status == 200 => {
                is_direct &= patient.is_direct(&heard);
                open.push(path);
            }
            Ok(heard) => said.push(format!("{path} {}", heard.status)),
            Err(_) => said.push(format!("{path} no answer")),
        }
    }
    if open.is_empty() {
        return Check::well("closed", format!("nothing is told without a token: {}", said.join(", ")));
    }
    let open = open.join(", ");
    if is_direct {
        return Check::unseen(
            "closed",
            format!(
                "{open} answer without a token, as they may on this machine; ask through the proxy, from outside, to see"
            ),
        );
    }
    Check::ill(
        "closed",
        format!("{open} answer whoever asks, without a token"),
        "set API_TOKEN (and ADMIN_TOKEN); in nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\nand close them to the outside: location ~ ^/(metrics|api/(instances|debug|events)) { return 403; }",
    )
}
