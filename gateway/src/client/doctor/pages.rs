//! Which web pages may ask (checklist 139): the one that is named, and nobody else.

use super::{
    patient::Patient,
    report::{Check, Report},
};

/// A page that no gateway should know.
const STRANGER: &str = "https://holdfast-doctor.invalid";

pub async fn check(patient: &Patient, report: &mut Report) {
    report.add(known(patient).await);
    report.add(stranger(patient).await);
}

async fn known(patient: &Patient) -> Check {
    let Some(origin) = &patient.origin else {
        return Check::unseen("cors", "name the page that will connect with --origin https://app.example.com");
    };
    let asked = patient.asked("OPTIONS", "/api/handshake").with("Origin", &**origin);
    let asked =
        asked.with("Access-Control-Request-Method", "GET").with("Access-Control-Request-Headers", "authorization");
    let answer = match patient.ask(asked).await {
        Ok(answer) => answer,
        Err(why) => return Check::ill("cors", why, "the error log of the proxy says why"),
    };
    let allowed = answer.header("access-control-allow-origin");
    let setting = format!("CORS_ORIGINS={origin} (a comma between several); SIGHUP has it read anew");
    match (answer.status, allowed) {
        (200..300, Some(allowed)) if allowed == origin || allowed == "*" => {
            Check::well("cors", format!("pages of {origin} may connect and ask"))
        }
        (200..300, Some(allowed)) => Check::ill(
            "cors",
            format!("pages of {origin} are told that {allowed} is allowed"),
            "something in between writes Access-Control-Allow-Origin: leave that to the gateway (no add_header in nginx)",
        ),
        (200..300, None) if answer.instance().is_some() => Check::ill(
            "cors",
            "the gateway does not hear the Origin of the page",
            "let the proxy pass Origin on: no proxy_set_header Origin",
        ),
        (403, _) if answer.instance().is_some() => {
            Check::ill("cors", format!("pages of {origin} are refused: {}", answer.problem()), setting)
        }
        _ => Check::ill(
            "cors",
            format!("OPTIONS is not answered by the gateway ({})", answer.status_line()),
            "let the proxy pass OPTIONS on, too",
        ),
    }
}

async fn stranger(patient: &Patient) -> Check {
    let answer = match patient.ask(patient.asked("GET", "/health").with("Origin", STRANGER)).await {
        Ok(answer) => answer,
        Err(why) => return Check::unseen("strangers", why),
    };
    let detail = answer.body["detail"].as_str().unwrap_or_default();
    match (answer.status, answer.instance(), answer.header("access-control-allow-origin")) {
        (403, Some(_), _) if detail.contains(STRANGER) => {
            Check::well("strangers", "a page of another origin is refused, and Origin arrives as it was sent")
        }
        (403, Some(_), _) => Check::ill(
            "strangers",
            format!("the proxy changes Origin: {STRANGER} was sent ({detail})"),
            "take proxy_set_header Origin out of the proxy's configuration",
        ),
        (200, Some(_), Some("*")) => Check::ill(
            "strangers",
            "every page of the web may ask (CORS_ORIGINS=*)",
            "list the origins of your own pages in CORS_ORIGINS, unless this gateway is for everybody",
        ),
        (200, Some(_), _) => Check::ill(
            "strangers",
            "a page of a stranger is let in: the gateway does not hear its Origin",
            "let the proxy pass Origin on: no proxy_set_header Origin",
        ),
        _ => Check::unseen("strangers", format!("/health is not answered by the gateway ({})", answer.status_line())),
    }
}
