//! The files that Holdfast ships, and what in each is replaced. A rule whose text a file no longer has is an error, and
//! a test tries all of them.

use super::site::{Site, plain};
use std::{cmp::Reverse, net::SocketAddr, ops::Range};

/// Where the shipped files have the program and its files.
pub const PROGRAM: &str = "/usr/local/bin/holdfast";
pub const FOLDER: &str = "/etc/holdfast";
/// Instances in the shipped files, and the port of the first.
const SHIPPED: u16 = 3;
const SHIPPED_PORT: u16 = 8081;

/// A shipped file.
#[derive(Debug)]
pub struct Template {
    /// What it is called where it is written.
    pub name: &'static str,
    text: &'static str,
    rules: &'static [Rule],
}

#[derive(Debug)]
enum Rule {
    /// Wherever this stands, that.
    Text(&'static str, fn(&Site) -> Result<String, String>),
    /// The number behind this.
    Number(&'static str, fn(&Site) -> u16),
    /// The shipped ports, wherever they stand as numbers.
    Ports,
    /// How many instances there are, in comments, if these speak of it.
    Maybe(&'static str),
    /// Each line that speaks of the first instance, once for each of them; those of the others go.
    Each { shipped: fn(u16) -> String, filled: fn(&Site, u16) -> String },
    /// From the line with this up to the line that begins with that.
    Between(&'static str, &'static str, &'static str),
}

const DOMAIN: Rule = Rule::Text("example.com", |site| Ok(site.domain.clone()));

pub const SETTINGS: Template =
    Template { name: "holdfast.toml", text: include_str!("holdfast.toml"), rules: &[DOMAIN] };

pub const PM2: Template = Template {
    name: "ecosystem.config.cjs",
    text: include_str!("../../../../deploy/pm2/ecosystem.config.cjs"),
    rules: &[
        Rule::Text(PROGRAM, |site| plain(&site.program).map(str::to_owned)),
        Rule::Text(FOLDER, |site| plain(&site.folder).map(str::to_owned)),
        Rule::Number("instances: ", |site| site.instances),
        Rule::Ports,
        Rule::Maybe("three instances"),
    ],
};

pub const UNITS: [Template; 3] = [
    Template {
        name: "holdfast@.service",
        text: include_str!("../../../../deploy/systemd/holdfast@.service"),
        rules: &[Rule::Text(PROGRAM, |site| Ok(program_of_a_service(site)?.to_owned()))],
    },
    Template {
        name: "holdfast@.socket",
        text: include_str!("../../../../deploy/systemd/holdfast@.socket"),
        rules: &[],
    },
    Template { name: "holdfast.target", text: include_str!("../../../../deploy/systemd/holdfast.target"), rules: &[] },
];

pub const NGINX: Template = Template {
    name: "holdfast.conf",
    text: include_str!("../../../../nginx/holdfast.conf"),
    rules: &[
        DOMAIN,
        Rule::Each { shipped: at_home, filled: |site, nth| format!("127.0.0.1:{}", site.port + nth) },
        Rule::Maybe("three gateways"),
    ],
};

/// The shipped nginx at this door and in front of these instances, with its logs where it runs.
pub fn nginx_at(door: SocketAddr, instances: &[SocketAddr]) -> Result<String, String> {
    let listens = format!("listen {door};");
    let places = [("listen 80;", &*listens), ("    listen [::]:80;\n", ""), ("/var/log/nginx/", "")];
    let count = instances.len().try_into().map_err(|_| "so many instances have no room".to_owned())?;
    let mut edits = each(NGINX.text, at_home, |nth| instances[usize::from(nth)].to_string(), count);
    for (was, is) in places {
        edits = edits.zip(wherever(NGINX.text, was, is)).map(|(edits, more)| [edits, more].concat());
    }
    let missing = || format!("{} no longer has what stands for its door or its instances", NGINX.name);
    Ok(edited(NGINX.text, edits.ok_or_else(missing)?))
}

pub const NGINX_IN_DOCKER: Template = Template {
    name: "holdfast.conf",
    text: include_str!("../../../../nginx/holdfast.conf"),
    rules: &[
        DOMAIN,
        Rule::Each { shipped: at_home, filled: |_, nth| format!("holdfast-{}:8080", nth + 1) },
        Rule::Maybe("three gateways"),
        // What the image passes on to those who read its log.
        Rule::Text("/var/log/nginx/holdfast.log", |_| Ok("/var/log/nginx/access.log".into())),
        Rule::Text("/var/log/nginx/holdfast-error.log", |_| Ok("/var/log/nginx/error.log".into())),
    ],
};

pub const COMPOSE: Template = Template {
    name: "compose.yaml",
    text: include_str!("../../../../deploy/docker/compose.yaml"),
    rules: &[
        DOMAIN,
        Rule::Each { shipped: in_docker, filled: |_, nth| in_docker(nth) },
        Rule::Maybe("Three instances"),
    ],
};

pub const DOCKERFILE: Template = Template {
    name: "Dockerfile",
    text: include_str!("../../../../deploy/docker/Dockerfile"),
    rules: &[Rule::Between("# Holdfast with nothing around it", "FROM scratch", WITH_PROGRAM)],
};

/// In place of a build from the source.
const WITH_PROGRAM: &str = "\
# Holdfast with nothing around it: the program, and the authorities that it believes. The program is the file holdfast
# beside this one. It has to be linked statically.
FROM alpine:3 AS build
RUN apk add --no-cache ca-certificates
COPY holdfast /holdfast

";

fn at_home(nth: u16) -> String {
    format!("127.0.0.1:{}", SHIPPED_PORT + nth)
}

fn in_docker(nth: u16) -> String {
    format!("holdfast-{}", nth + 1)
}

/// A service sees no home and no temporary files, so from there the program has to be installed.
pub fn program_of_a_service(site: &Site) -> Result<&str, String> {
    let path = plain(&site.program)?;
    let is_seen = ["/usr/", "/opt/", "/srv/"].iter().any(|place| path.starts_with(place));
    Ok(if is_seen { path } else { PROGRAM })
}

/// A place in a shipped file, and what is written there instead.
type Edit = (Range<usize>, String);

impl Template {
    /// The file for this site. Every rule looks at the shipped text, so that none finds what another has put in.
    pub fn filled(&self, site: &Site) -> Result<String, String> {
        let mut edits = Vec::new();
        for rule in self.rules {
            let found = rule.edits(self.text, site)?;
            let Some(found) = found else {
                let (name, was) = (self.name, rule.replaces());
                return Err(format!("the {name} in this program has no “{was}” to replace; this is a bug of Holdfast"));
            };
            edits.extend(found);
        }
        Ok(edited(self.text, edits))
    }
}

/// Of edits that begin at the same place the longest is made.
fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(place, _)| (place.start, Reverse(place.end)));
    let (mut new, mut done) = (String::new(), 0);
    for (place, instead) in edits {
        if place.start >= done {
            new += &text[done..place.start];
            new += &instead;
            done = place.end;
        }
    }
    new + &text[done..]
}

/// At each place of the first the second; nothing if it has none.
fn wherever(text: &str, was: &str, is: &str) -> Option<Vec<Edit>> {
    let edits: Vec<_> = text.match_indices(was).map(|(at, _)| (at..at + was.len(), is.to_owned())).collect();
    (!edits.is_empty()).then_some(edits)
}

impl Rule {
    /// What it looks for, for a reader.
    fn replaces(&self) -> String {
        match self {
            Self::Text(was, _) | Self::Number(was, _) | Self::Maybe(was) | Self::Between(was, ..) => (*was).to_owned(),
            Self::Ports => SHIPPED_PORT.to_string(),
            Self::Each { shipped, .. } => shipped(0),
        }
    }

    /// Nothing if the text has nothing for it.
    fn edits(&self, text: &str, site: &Site) -> Result<Option<Vec<Edit>>, String> {
        Ok(match self {
            Self::Text(was, is) => wherever(text, was, &is(site)?),
            Self::Number(before, number) => text.find(before).map(|at| {
                let at = at + before.len();
                let rest = text[at..].trim_start_matches(|c: char| c.is_ascii_digit());
                vec![(at..text.len() - rest.len(), number(site).to_string())]
            }),
            Self::Ports => {
                let port = |nth: u16| wherever(text, &(SHIPPED_PORT + nth).to_string(), &(site.port + nth).to_string());
                port(0).map(|first| first.into_iter().chain((1..SHIPPED).filter_map(port).flatten()).collect())
            }
            Self::Maybe(three) => {
                let noun = three.rsplit(' ').next().unwrap_or_default();
                let ending = if site.instances == 1 { noun.trim_end_matches('s') } else { noun };
                Some(wherever(text, three, &format!("{} {ending}", site.instances)).unwrap_or_default())
            }
            Self::Each { shipped, filled } => each(text, *shipped, |nth| filled(site, nth), site.instances),
            Self::Between(from, to, instead) => {
                let start = text.find(from);
                let rest = start.and_then(|start| text[start..].find(&format!("\n{to}")).map(|end| start + end + 1));
                start.zip(rest).map(|(start, rest)| vec![(start..rest, (*instead).to_owned())])
            }
        })
    }
}

/// Whole lines, so that what is written in them is written once.
fn each(text: &str, shipped: fn(u16) -> String, filled: impl Fn(u16) -> String, instances: u16) -> Option<Vec<Edit>> {
    let names: Vec<_> = (0..SHIPPED).map(shipped).collect();
    let (mut edits, mut at) = (Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let place = at..at + line.len();
        at = place.end;
        match names.iter().position(|name| line.contains(name)) {
            None => {}
            Some(0) => {
                edits.push((place, (0..instances).map(|nth| line.replace(&names[0], &filled(nth))).collect()));
            }
            Some(_) => edits.push((place, String::new())),
        }
    }
    // As many of each, or it is another list than this knows.
    (!edits.is_empty() && edits.len() % usize::from(SHIPPED) == 0).then_some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&Template; 9] =
        [&SETTINGS, &PM2, &UNITS[0], &UNITS[1], &UNITS[2], &NGINX, &NGINX_IN_DOCKER, &COMPOSE, &DOCKERFILE];

    fn site(instances: u16) -> Site {
        Site {
            domain: "chat.test".into(),
            instances,
            port: 5000,
            folder: "/srv/chat".into(),
            program: "/opt/chat/holdfast".into(),
        }
    }

    #[test]
    fn each_shipped_file_has_what_is_replaced() {
        for template in ALL {
            let filled = template.filled(&site(2)).unwrap();
            for was in ["example.com", "8081", "8082", "8083", PROGRAM] {
                assert!(!filled.contains(was), "{} still has {was}:\n{filled}", template.name);
            }
        }
    }

    #[test]
    fn a_shipped_file_that_has_changed_is_noticed() {
        let rules = ALL.iter().flat_map(|template| template.rules);
        for rule in rules.filter(|rule| !matches!(rule, Rule::Maybe(_))) {
            assert_eq!(rule.edits("something else\n", &site(3)), Ok(None), "{rule:?}");
        }
        let fourth = "server 127.0.0.1:8081;\nserver 127.0.0.1:8082;\n";
        assert_eq!(each(fourth, at_home, |_| String::new(), 2), None);
    }

    #[test]
    fn whoever_runs_nginx_himself_has_it_where_he_wants_it() {
        let [door, one, two] = [7000, 7001, 7002].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let text = nginx_at(door, &[one, two]).unwrap();
        for part in
            ["    listen 127.0.0.1:7000;\n", "server 127.0.0.1:7001 ", "server 127.0.0.1:7002 ", " holdfast.log "]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        for part in ["80;", "808", "/var/log", "[::]"] {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_was_put_in_is_not_replaced_again() {
        let tricky = Site { port: 8080, folder: "/srv/i8081/etc/holdfast".into(), ..site(3) };
        let tricky = Site { program: "/etc/holdfast/8081/holdfast".into(), ..tricky };
        let pm2 = PM2.filled(&tricky).unwrap();
        for part in [
            "on the ports 8080, 8081 and 8082.",
            "'/srv/i8081/etc/holdfast/holdfast.toml'",
            "script: '/etc/holdfast/8081/holdfast'",
        ] {
            assert!(pm2.contains(part), "{part} in {pm2}");
        }
        let tricky = Site { domain: "holdfast-1.example.com".into(), ..site(2) };
        let compose = COMPOSE.filled(&tricky).unwrap();
        for part in ["https://holdfast-1.example.com,http://holdfast-1.example.com\n", "hostname: holdfast-2 }"] {
            assert!(compose.contains(part), "{part} in {compose}");
        }
        // The last port there is.
        let highest = Site { port: 65_437, ..site(99) };
        assert_eq!(highest.ports().last(), Some(65_535));
        assert!(NGINX.filled(&highest).unwrap().contains("127.0.0.1:65535 "));
    }

    #[test]
    fn there_are_as_many_as_are_wanted() {
        for instances in [1, 5] {
            let (nginx, compose) = (NGINX.filled(&site(instances)).unwrap(), COMPOSE.filled(&site(instances)).unwrap());
            assert_eq!(nginx.matches("server 127.0.0.1:500").count(), usize::from(instances), "{nginx}");
            assert_eq!(compose.matches("<<: *holdfast").count(), usize::from(instances), "{compose}");
            assert_eq!(compose.matches("- holdfast-").count(), usize::from(instances), "{compose}");
        }
    }

    #[test]
    fn a_service_is_not_told_of_a_program_that_it_cannot_see() {
        let at = |program: &str| Site { program: program.into(), ..site(1) };
        assert_eq!(program_of_a_service(&at("/opt/h")), Ok("/opt/h"));
        assert_eq!(program_of_a_service(&at("/home/ann/h")), Ok(PROGRAM));
        assert!(program_of_a_service(&at("/opt/my h")).is_err());
    }
}
