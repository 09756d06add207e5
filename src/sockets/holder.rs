//! Which process listens at an address, as far as this one may see: by what the kernel shows in proc(5).

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::address::Address;

/// A process that listens at an address.
pub(super) struct Holder {
    id: u32,
    /// The kernel's name for it, of 15 bytes at the most.
    name: String,
}

impl Holder {
    pub(super) fn of(address: &Address) -> Option<Holder> {
        let inode = match address {
            Address::Tcp(wanted) => tcp_socket(wanted)?,
            Address::Unix(path) => unix_socket(path.to_str()?)?,
            Address::Abstract(name) => unix_socket(&format!("@{name}"))?,
        };
        let link = format!("socket:[{inode}]");
        let has_it = |folder: &Path| {
            let descriptors = fs::read_dir(folder.join("fd")).into_iter().flatten();
            let mut targets = descriptors.filter_map(|it| fs::read_link(it.ok()?.path()).ok());
            targets.any(|it| it.as_os_str() == &*link)
        };
        let processes = fs::read_dir("/proc").ok()?;
        processes.filter_map(|it| it.ok()).find_map(|it| {
            let id = it.file_name().to_str()?.parse().ok()?;
            has_it(&it.path()).then(|| Holder {
                id,
                name: fs::read_to_string(it.path().join("comm")).unwrap_or_default(),
            })
        })
    }

    pub(super) fn is_this_process(&self) -> bool {
        self.id == std::process::id()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {}", self.id)?;
        match self.name.trim_end() {
            "" => Ok(()),
            name => write!(formatter, " ({name})"),
        }
    }
}

/// The inode of a TCP socket that keeps others from listening at this address.
fn tcp_socket(wanted: &SocketAddr) -> Option<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|it| {
        let table = fs::read_to_string(it).ok()?;
        in_tcp_table(&table, wanted)
    })
}

/// As above, in a table as proc(5) has it: the second column is the address, the fourth the state, the tenth the inode.
fn in_tcp_table(table: &str, wanted: &SocketAddr) -> Option<String> {
    const LISTENS: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = hexadecimal(columns.get(1)?)?;
        let (own, other) = (wanted.ip(), local.ip());
        let collides = own == other || own.is_unspecified() || other.is_unspecified();
        let is_it = *columns.get(3)? == LISTENS && local.port() == wanted.port() && collides;
        is_it.then(|| columns.get(9).map(|it| (*it).to_owned()))?
    })
}

/// `0100007F:C350`: words of 32 bits as they lie in memory, and the port.
fn hexadecimal(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(&*bytes) {
        Ok(bytes) => IpAddr::from(Ipv4Addr::from(bytes)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&*bytes).ok()?)),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

/// The inode of a unix socket of this name that listens.
fn unix_socket(name: &str) -> Option<String> {
    in_unix_table(&fs::read_to_string("/proc/net/unix").ok()?, name)
}

/// As above, in a table as proc(5) has it: the fourth column is the flags, the seventh the inode, and the
/// rest of the line the name.
fn in_unix_table(table: &str, name: &str) -> Option<String> {
    /// `__SO_ACCEPTCON`
    const LISTENS: &str = "00010000";
    table.lines().skip(1).find_map(|line| {
        let mut rest = line;
        let columns: [&str; 7] = std::array::from_fn(|_| {
            let (column, after) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
            rest = after;
            column
        });
        (columns[3] == LISTENS && rest == name).then(|| columns[6].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_ours = |it: Address| Holder::of(&it).is_some_and(|it| it.is_this_process());
        assert!(is_ours(Address::Tcp(address)));
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(is_ours(Address::Tcp(everywhere)));
        drop(listener);
        assert!(Holder::of(&Address::Tcp(address)).is_none());

        let name = format!("touchdown holder {}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_ours(Address::Unix(path.clone())));
        drop(listener);
        assert!(Holder::of(&Address::Unix(path.clone())).is_none());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_sockets_that_listen_and_collide_are_found() {
        // As a machine with little end first shows it.
        let host = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |address, state, inode| {
            format!(
                "   0: {}:C350 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  0  0 {inode} 1 0\n",
                host(address)
            )
        };
        let table = [
            "  sl  local_address\n".to_owned(),
            line([127, 0, 0, 1], "01", 11),
            line([127, 0, 0, 2], "0A", 12),
            line([127, 0, 0, 1], "0A", 13),
        ]
        .concat();
        let find = |address: &str| in_tcp_table(&table, &address.parse().unwrap());
        assert_eq!(find("127.0.0.1:50000").as_deref(), Some("13"));
        assert_eq!(find("0.0.0.0:50000").as_deref(), Some("12"));
        assert_eq!(find("127.0.0.3:50000"), None);
        assert_eq!(find("127.0.0.1:50001"), None);
    }

    #[test]
    fn names_of_unix_sockets_may_have_spaces() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 41 /run/a b.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03    42 /run/c.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 43\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 44 @name\n";
        let find = |name| in_unix_table(table, name);
        assert_eq!(find("/run/a b.sock").as_deref(), Some("41"));
        assert_eq!(
            find("/run/c.sock"),
            None,
            "it is connected, and does not listen"
        );
        assert_eq!(find("@name").as_deref(), Some("44"));
        assert_eq!(find("/run/d.sock"), None);
    }
}
