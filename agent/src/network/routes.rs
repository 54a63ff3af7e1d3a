//! Owns what the kernel's tables of routes say of the way out.
//!
//! Reading them is the caller's part. Formats: `/proc/net/route` and `/proc/net/ipv6_route`, as
//! Linux writes them (proc_net(5), net/ipv6/route.c).
//!
//! **Invariant:** pure, and a line that is not as it should be is passed over.

/// The route is there.
const UP: u32 = 0x1;
/// It leads nowhere.
const REJECT: u32 = 0x200;

/// The interfaces of the default routes that count, IPv4's first: of each family those with the lowest
/// metric.
pub fn default_interfaces(v4: &str, v6: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for interface in by_family(v4, v6).into_iter().flatten() {
        if !found.iter().any(|each| each == interface) {
            found.push(interface.to_owned());
        }
    }
    found
}

/// Whether a family's way out is by interfaces of these patterns alone: where one that is not is as near,
/// the other is a spare one.
pub fn is_metered(v4: &str, v6: &str, patterns: &[String]) -> bool {
    let is_metered = |interface: &&str| is_one_of(interface, patterns);
    by_family(v4, v6).iter().any(|family| !family.is_empty() && family.iter().all(is_metered))
}

/// Of IPv4 and of IPv6 the interfaces of the default routes with the lowest metric.
fn by_family<'a>(v4: &'a str, v6: &'a str) -> [Vec<&'a str>; 2] {
    let nearest = |routes: Vec<(u32, &'a str)>| {
        let lowest = routes.iter().map(|(metric, _)| *metric).min();
        let near = routes.into_iter().filter(|(metric, _)| Some(*metric) == lowest);
        near.map(|(_, interface)| interface).collect()
    };
    [
        nearest(v4.lines().filter_map(of_v4).collect()),
        nearest(v6.lines().filter_map(of_v6).collect()),
    ]
}

/// Whether `interface` is one of `patterns`, which may end with `*`.
pub fn is_one_of(interface: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => interface.starts_with(beginning),
        None => interface == pattern,
    })
}

/// Metric and interface of a default route: `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`.
fn of_v4(line: &str) -> Option<(u32, &str)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else {
        return None;
    };
    let is_default = hex(destination)? == 0 && hex(mask)? == 0;
    (is_default && leads_out(hex(flags)?)).then_some((metric.parse().ok()?, interface))
}

/// The same: destination, its length, source, its length, next hop, metric, references, use, flags,
/// interface.
fn of_v6(line: &str) -> Option<(u32, &str)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, _, _, _, metric, _, _, flags, interface] = fields.as_slice() else {
        return None;
    };
    let is_default = *length == "00" && destination.len() == 32;
    let leads = is_default && leads_out(hex(flags)?) && *interface != "lo";
    leads.then_some((hex(metric)?, interface))
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

fn leads_out(flags: u32) -> bool {
    flags & UP != 0 && flags & REJECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const LAN: &str = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
    const ETH: &str = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
    const WWAN: &str = "wwan0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n";
    const REJECTED: &str = "lo\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n";
    const DOWN: &str = "eth1\t00000000\t0100A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0\n";
    const V6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003     wlan0\n";
    const V6_LO: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
    const V6_LAN: &str = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";

    #[test]
    fn the_table_of_routes() {
        for (case, v4, v6, want) in [
            ("none", "", "", &[][..]),
            ("a head alone", HEAD, "", &[]),
            ("no default", &format!("{HEAD}{LAN}"), V6_LAN, &[]),
            ("one", &format!("{HEAD}{LAN}{ETH}"), "", &["eth0"]),
            ("the lower metric", &format!("{HEAD}{WWAN}{ETH}"), "", &["eth0"]),
            ("what is left", &format!("{HEAD}{WWAN}"), "", &["wwan0"]),
            ("rejected and down", &format!("{HEAD}{REJECTED}{DOWN}{WWAN}"), V6_LO, &["wwan0"]),
            ("IPv6 alone", HEAD, &format!("{V6_LAN}{V6}{V6_LO}"), &["wlan0"]),
            ("each family its own", &format!("{HEAD}{WWAN}"), V6, &["wwan0", "wlan0"]),
            (
                "two as good",
                &format!("{ETH}{}", ETH.replace("eth0", "eth2")),
                "",
                &["eth0", "eth2"],
            ),
            ("the same twice", &format!("{ETH}{ETH}"), "", &["eth0"]),
            ("no table", "wwan0 zz\n\u{1}\nwwan0 00000000 0 gg 0 0 0 0", "00 00", &[]),
        ] {
            assert_eq!(default_interfaces(v4, v6), want, "{case}");
        }
    }

    #[test]
    fn a_spare_interface_makes_no_metered_link() {
        let patterns = ["wwan*".to_owned()];
        let spare = WWAN.replace("\t700\t", "\t100\t");
        let wwan_v6 = V6.replace("wlan0", "wwan0");
        for (case, v4, v6, want) in [
            ("no way out", HEAD, "", false),
            ("the modem alone", WWAN, "", true),
            ("a cable is nearer", &format!("{WWAN}{ETH}"), "", false),
            ("both as near", &format!("{spare}{ETH}"), "", false),
            ("the other family by the modem", ETH, &wwan_v6, true),
            ("both families as near", ETH, &format!("{wwan_v6}{V6}"), false),
        ] {
            assert_eq!(is_metered(v4, v6, &patterns), want, "{case}");
        }
    }

    #[test]
    fn the_tables_of_this_machine_are_read() {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
        for interface in default_interfaces(&v4, &v6) {
            assert!(v4.contains(&interface) || v6.contains(&interface));
        }
    }

    #[test]
    fn a_pattern_is_a_name_or_how_one_begins() {
        let patterns = ["wwan*", "ppp0"].map(String::from);
        for (interface, want) in
            [("wwan0", true), ("wwan", true), ("ppp0", true), ("ppp1", false), ("eth0", false)]
        {
            assert_eq!(is_one_of(interface, &patterns), want, "{interface}");
        }
        assert!(is_one_of("any", &["*".to_owned()]));
    }
}
